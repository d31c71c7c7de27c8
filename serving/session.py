"""A model file, opened and checked, that fills holes in photographs.

Needs onnxruntime, numpy, scipy and Pillow only. Files with an unknown contract
(`musical_tf.contract`) are refused.
"""

import operator
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf import onnx_runtime
from musical_tf.contract import (
    CHANNEL_AXES,
    FILLS,
    OUTPUTS,
    SEED,
    TENSOR_TYPES,
    Contract,
    ModelError,
)

from . import graph_cache, inputs, named_models, tiling
from .inputs import Picture
from .memory import MEMORY_LIMIT, InferenceError, check_memory
from .options import LARGEST_SEED
from .providers import CPU, ProviderError, computing, is_failure, resolve
from .tiling import Progress

onnxruntime = onnx_runtime.load()

MINIMUM_SIZE = 16
"""Smallest height and width the graph takes; smaller images are padded here by mirroring."""

_GIVE_BACK_MEMORY = ("memory.enable_memory_arena_shrinkage", "cpu:0")


class InpaintingSession:
    """Fills holes in photographs with one ONNX model. Safe to share between threads.

    Memory, with the strategies "crop" and "resize": at most 8 bytes for each pixel of the
    photograph, beside the photograph itself and its hole, which are 4, and what one run of the
    model takes at its training size; both once for every thread that is filling. `python -m
    benchmarks.serving_memory --model model.onnx` measures it, and fails if it is more.

    Args:
        model_path: File written by `export/to_onnx.py`, or the name of a model that is part of the
            package, see `serving.named_models`.
        providers: Execution providers in order of preference, by ONNX Runtime's names or their
            short forms ("cuda", "cpu"). By default the fastest known one that this installation of
            ONNX Runtime has, then the CPU. When they are given, one of them must really start:
            ONNX Runtime falls back to the CPU silently.
        threads: CPU threads for one run; 0 leaves the choice to ONNX Runtime.
        memory_limit: Bytes. A run of several images, or larger than the training size, that is
            estimated to need more is refused instead of being started, because an attention layer's
            memory grows with the area of the hole times the area of the image: at 4096 x 4096 it
            would be terabytes.

    Attributes:
        contract: The metadata of the model file.
        provider: The execution provider that computed the first run.
        has_variants: Whether another `seed` gives another plausible fill.
        name: That of a model that is part of the package; the file's of any other.

    Raises:
        FileNotFoundError: If there is no such file and no such name; lists the names.
        OSError: If the file cannot be read.
        ModelError: If the file is no ONNX model, or its contract is unknown or broken.
        ProviderError: If a provider is unknown, not installed, or did not start.
        ValueError: On a negative number of threads.

    Example:
        >>> session = InpaintingSession()
        >>> filled = session.inpaint(image, hole)
    """

    def __init__(
        self,
        model_path: str | Path = named_models.DEFAULT,
        providers: Sequence[str] | None = None,
        *,
        threads: int = 0,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self.model_path = named_models.find(model_path)
        self.name = named_models.name_of(self.model_path)
        self.memory_limit = memory_limit
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}")
        if not self.model_path.is_file():
            raise ModelError(f"{self.model_path}: not a file; give the .onnx file itself")
        wanted = resolve(providers)
        with open(self.model_path, "rb"):
            pass  # a file that may not be read is no damaged model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: a fallback is reported by `provider`
        # Threads that spin while they wait win little alone, and lose much beside other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A plan for the second run of a size is one block beside what the first has left behind.
        options.enable_mem_pattern = False
        self._options = options
        try:
            self._session = self._open(wanted)
        except Exception as error:  # onnxruntime's own exceptions share no base class but this
            if providers is not None and is_failure(error):
                raise ProviderError(f"{wanted[0]} did not start: {_one_line(error)}") from error
            self._session = self._open_on_cpu(error)
        try:
            self.contract = Contract.from_metadata(_metadata_of(self._session))
            _check_signature(self._session, self.contract)
            self.has_variants = _takes_seed(self._session)
        except ModelError as error:
            raise ModelError(f"{self.model_path}: {error}") from error
        try:
            self.provider = self._find_provider(wanted)
        except InferenceError as error:
            # It registered and then could not compute: a GPU that this build has no code for.
            if providers is not None:
                raise ProviderError(f"{wanted[0]} started and failed: {error}") from error
            self._session = self._open_on_cpu(error)
            self.provider = CPU
        if providers is not None and self.provider not in wanted:
            raise ProviderError(
                f"providers must include {self.provider}, which runs the model, got "
                f"{', '.join(wanted)}: its libraries are missing, or it lacks the model's operators"
            )

    def inpaint(
        self,
        image: Picture,
        mask: Picture,
        strategy: str | None = None,
        working_size: int | None = None,
        *,
        fill: str = "auto",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Any:
        """Returns `image` with the hole filled and every other pixel untouched.

        Args:
            image: An array `(H, W)` or `(H, W, 1 to 4 channels)` of uint8 or uint16, gray or RGB,
                either with alpha; a PIL image, as it is, not turned by its EXIF; or the path of a
                file. 16 bits are filled in 8.
            mask: An array `(H, W)` bool, True where the image must be filled; an array of uint8, a
                PIL image or a path, read by the rule of `musical_tf.images.load_mask`.
            strategy: How the model sees the image: "crop", windows around each hole; "resize",
                squares framed as in training; or "original", as it is; see `serving.tiling`.
                Default: the model's own, `contract.strategy`.
            working_size: Side in pixels at which the model sees a window. Default: the size it was
                trained at. Larger is sharper and slower, and holes look larger to the model than
                those it was trained on.
            fill: "copy": pixels of the photograph are copied into the hole, sharp; "network": the
                network's own fill, smooth; "auto": copies if the file has them.
            seed: Number of one of the plausible fills. Files without variants, and fill "network",
                take 0 only.
            progress: Called with `(windows done, windows in all)` while it works. An exception that
                it raises ends the filling.

        Returns:
            For an array, a new one of the same shape and type; for a PIL image or a path, a PIL
            image. Outside the hole it equals `image` exactly, whatever resizing happened in
            between. With an empty hole it is a copy of `image`.

        Raises:
            TypeError: If `image` or `mask` is of another kind, or `working_size` no whole number.
            ValueError: On wrong type or shape (the message gives both), a mask that covers all
                (nothing to copy from), an unknown strategy, or a run that would exceed the memory
                limit.
            OSError: If a file cannot be opened.
            InferenceError: If ONNX Runtime fails.
        """
        given = inputs.read(image, mask)
        if given.hole.all():
            raise ValueError("mask covers the whole image: nothing is left to copy from")
        if working_size is None:
            working_size = self.contract.training_size
        if strategy is None:
            strategy = self.contract.strategy

        run = partial(self.run_windows, fill=fill, seed=seed)
        size = operator.index(working_size)
        filled = tiling.fill(given.pixels, given.hole, run, size, strategy, progress)
        return given.give_back(filled)

    def inpaint_batch(
        self, images: np.ndarray, holes: np.ndarray, fill: str = "auto", seed: int = 0
    ) -> np.ndarray:
        """Fills several images of one size in one run of the model, at that size.

        Args:
            images: `(B, H, W, 3)` uint8 RGB.
            holes: `(B, H, W)` bool, one hole for each image; a hole may be empty.
            fill, seed: As of `inpaint`.

        Returns:
            `(B, H, W, 3)` uint8 RGB. Where `holes` is False it equals `images` exactly.

        Raises:
            TypeError, ValueError, InferenceError: As `inpaint`.
        """
        made = self.run_windows(images, holes, fill, seed)
        filled = np.stack([each[0] if isinstance(each, tuple) else each for each in made])
        return np.where(holes[..., None], filled, images)

    def run_windows(
        self, images: np.ndarray, holes: np.ndarray, fill: str = "auto", seed: int = 0
    ) -> list[np.ndarray | tuple[np.ndarray, np.ndarray]]:
        """As `inpaint_batch`, but returns what `tiling.Run` does."""
        _check_batch(images, holes)
        if not holes.any():
            return list(images)
        filled, source = self._run(images, holes, copies=self.copies(fill, seed), seed=seed)
        return list(filled) if source is None else list(zip(filled, source, strict=True))

    def describe(self) -> dict[str, Any]:
        """What is loaded and what runs it, ready for JSON."""
        return {
            "model": str(self.model_path),
            "provider": self.provider,
            "onnxruntime": onnxruntime.__version__,
            "variants": self.has_variants,
            **vars(self.contract),
        }

    def _open(self, providers: list[str]) -> Any:
        def create(file: str | None = None) -> Any:
            # Its own way to fall back prints to stdout, and may happen in the middle of a run.
            return onnxruntime.InferenceSession(
                file or str(self.model_path), self._options, providers=providers, enable_fallback=0
            )

        levels = onnxruntime.GraphOptimizationLevel
        if providers != [CPU]:
            self._options.graph_optimization_level = levels.ORT_ENABLE_ALL
            return create()
        # One level for every caller, so that all get the same pixels. Higher ones take more time to
        # open than they save in 60 runs, and the highest depends on the kind of processor.
        self._options.graph_optimization_level = levels.ORT_ENABLE_BASIC
        if self.name in named_models.names():
            file = graph_cache.file_of(self.model_path, onnxruntime.__version__)
            if file is not None:
                return graph_cache.open_through(file, self._options, create)
        return create()

    def _open_on_cpu(self, reason: Exception) -> Any:
        """What is left where the fastest provider fails for whatever reason."""
        try:
            return self._open([CPU])
        except Exception:
            raise ModelError(
                f"{self.model_path}: ONNX Runtime cannot load it: {_one_line(reason)}"
            ) from reason

    def _find_provider(self, wanted: list[str]) -> str:
        """The provider that computes, seen on a small run."""
        registered = self._session.get_providers()
        if registered == [CPU]:
            return registered[0]
        import tempfile  # in 5 ms, and few sessions need it

        with tempfile.TemporaryDirectory() as folder:
            self._options.enable_profiling = True
            self._options.profile_file_prefix = str(Path(folder) / "profile")
            try:
                profiled = self._open(wanted)
            except Exception as error:
                raise InferenceError(f"a second session did not start: {error}") from error
            finally:
                self._options.enable_profiling = False
            size = max(MINIMUM_SIZE, self.contract.size_multiple)
            image = np.zeros((1, size, size, 3), np.uint8)
            hole = np.zeros((1, size, size), bool)
            hole[:, : size // 2] = True
            self._run(image, hole, profiled)
            return computing(profiled.end_profiling(), registered[0])

    def copies(self, fill: str, seed: int = 0) -> bool:
        """Whether a fill copies pixels.

        Raises:
            ValueError: On an unknown fill or seed, or if the file cannot do it.
        """
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
        has_source = "source" in OUTPUTS[self.contract.contract]
        if fill == "copy" and not has_source:
            raise ValueError(
                f"fill must be auto or network, got 'copy': {self.name} is a file of contract "
                f"{self.contract.contract}, which copies no pixels"
            )
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed must be within 0 and {LARGEST_SEED}, got {seed}")
        if seed and fill == "network":
            raise ValueError(f"seed must be 0 with fill network, which has one fill, got {seed}")
        if seed and not self.has_variants:
            raise ValueError(
                f"seed must be 0, got {seed}: {self.name} has no variants; export it again"
            )
        return has_source and fill != "network"

    def _run(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        session: Any | None = None,
        *,
        copies: bool = False,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One run of the graph: uint8 `(B, H, W, 3)` and bool `(B, H, W)` in.

        Returns:
            `(filled, source)`: uint8 `(B, H, W, 3)`, and int32 `(B, H, W, 2)` or None.
        """
        batch, height, width = holes.shape
        options = None
        names = ["predicted" if len(OUTPUTS[self.contract.contract]) > 1 else "inpainted"]
        if copies:
            names = ["inpainted", "source"]
        if batch > 1 or max(height, width) > self.contract.training_size:
            check_memory(holes, self.contract, self.memory_limit)
            # What such a run took goes back when it ends; the next one may never come.
            options = onnxruntime.RunOptions()
            options.add_run_config_entry(*_GIVE_BACK_MEMORY)
        below, right = max(0, MINIMUM_SIZE - height), max(0, MINIMUM_SIZE - width)
        if below or right:
            # The hole is mirrored with the image, so that a mirrored hole pixel is not taken for a
            # known one.
            images = np.pad(images, ((0, 0), (0, below), (0, right), (0, 0)), mode="symmetric")
            holes = np.pad(holes, ((0, 0), (0, below), (0, right)), mode="symmetric")
        is_float = self.contract.io == "float32"
        feed = images.astype(np.float32) / np.float32(255) if is_float else images
        mask = holes.astype(np.float32) if is_float else holes.astype(np.uint8) * np.uint8(255)
        if self.contract.layout == "nchw":
            feed = feed.transpose(0, 3, 1, 2)
        fed = {"image": np.ascontiguousarray(feed), "mask": mask}
        if seed:
            fed[SEED] = np.array(seed, np.int64)
        try:
            filled, *source = (session or self._session).run(names, fed, options)
        except Exception as error:  # onnxruntime's own exceptions share no base class but this
            raise InferenceError(
                f"ONNX Runtime failed on {batch} image(s) of {width} x {height} pixels: "
                f"{_one_line(error)}"
            ) from error
        if self.contract.layout == "nchw":
            filled = filled.transpose(0, 2, 3, 1)
        if filled.shape != images.shape:
            raise InferenceError(f"the model returned {filled.shape}, expected {images.shape}")
        if is_float:
            if not np.isfinite(filled).all():
                raise InferenceError("the model returned values that are not finite")
            filled = np.clip(np.rint(filled * 255), 0, 255).astype(np.uint8)
        filled = filled[:, :height, :width]
        return filled, _inside(source[0], height, width) if source else None


def _metadata_of(session: Any) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ModelError(f"its metadata is not text: {error}") from error


def _check_batch(images: np.ndarray, holes: np.ndarray) -> None:
    for name, array in (("images", images), ("holes", holes)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    has_types = images.dtype == np.uint8 and holes.dtype == np.bool_
    if not has_types or images.ndim != 4 or images.shape != (*holes.shape, 3):
        raise ValueError(
            "images must be uint8 (B, H, W, 3) and holes bool (B, H, W), "
            f"got {images.dtype} {images.shape} and {holes.dtype} {holes.shape}"
        )
    if not images.size:
        raise ValueError(f"images must have pixels, got shape {images.shape}")
    for index in np.flatnonzero(holes.all(axis=(1, 2))):
        raise ValueError(f"holes[{index}] covers the whole image: nothing is left to copy from")


def _check_signature(session: Any, contract: Contract) -> None:
    """Holds the graph's inputs and outputs against what its metadata promises."""
    expected_type = TENSOR_TYPES[contract.io]
    for kind, nodes, ranks in (
        ("inputs", session.get_inputs(), {"image": 4, "mask": 3}),
        ("outputs", session.get_outputs(), dict.fromkeys(OUTPUTS[contract.contract], 4)),
    ):
        names = [node.name for node in nodes]
        if sorted(names) != sorted(ranks):
            raise ModelError(f"its {kind} must be {', '.join(ranks)}, got {', '.join(names)}")
        for node in nodes:
            if node.name == "source":
                if node.type != "tensor(int32)" or len(node.shape) != 4 or node.shape[3] != 2:
                    raise ModelError(
                        "'source' must be tensor(int32) of shape (batch, height, width, 2), "
                        f"got {node.type} {node.shape}"
                    )
                continue
            if node.type != expected_type or len(node.shape) != ranks[node.name]:
                raise ModelError(
                    f"{node.name!r} must be {expected_type} of rank {ranks[node.name]}, "
                    f"got {node.type} {node.shape}"
                )
            for axis, size in enumerate(node.shape):
                channels = len(node.shape) == 4 and axis == CHANNEL_AXES[contract.layout]
                if isinstance(size, int) and size != (3 if channels else None):
                    raise ModelError(
                        f"axis {axis} of {node.name!r} is fixed at {size}, where the contract "
                        f"({contract.layout}) wants {'3 channels' if channels else 'any size'}"
                    )


def _takes_seed(session: Any) -> bool:
    """Whether the graph has the optional input `SEED`."""
    found = [node for node in session.get_overridable_initializers() if node.name == SEED]
    for node in found:
        if node.type != "tensor(int64)" or node.shape:
            raise ModelError(
                f"{SEED!r} must be tensor(int64) of shape (), got {node.type} {node.shape}"
            )
    return bool(found)


def _inside(source: np.ndarray, height: int, width: int) -> np.ndarray:
    """Places in what `_run` pads a small image with are those of the pixels mirrored there."""
    source = source[:, :height, :width]
    limit = np.array([height, width])
    return np.where(source < limit, source, 2 * limit - 1 - source)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
