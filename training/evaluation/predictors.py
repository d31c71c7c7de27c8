"""Models that are measured: a trained run in Keras, or an exported file in ONNX Runtime.

Both have `predict`, from uint8 images and boolean holes to uint8 images with the known pixels kept,
so that whatever is measured on the one can be measured on the other.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musical_tf.contract import CHANNEL_AXES, PREFIX, TENSOR_TYPES
from musical_tf.files import sha256
from musical_tf.run_directory import RunDirectory

if TYPE_CHECKING:
    from musical_tf.layers.attention_maps import AttentionMap

Recipe = dict[str, Any]

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class RunPredictor:
    """A trained generator, run by Keras.

    Args:
        run: Run directory that holds `generator.keras`, such a file, or the name of a generator
            that is part of the package.

    Attributes:
        kind: "run".
        label: Method and preset.
        generator: The Keras model.
        inpaint: `InpaintingFunction` around the generator.
        method: Registry key of the method.
        recipe: That of the run's `recipe.json`, or of the named generator's card; empty without.
        card: The named generator's card; None of any other.
        training_size: Side of the images it was trained on, pixels, or None.
        source_hash: SHA-256 of the weights file.
        copies: Whether it copies known pixels, see `sources`.

    Raises:
        FileNotFoundError: Where there is no generator.
        ValueError: If the file is no generator of this project, or the recipe cannot be read.
    """

    kind = "run"

    def __init__(self, run: str | Path):
        # Here, not above: TensorFlow takes seconds to import, and an ONNX file is run without it.
        import musical_tf
        from musical_tf import methods, named_models
        from musical_tf.inference import InpaintingFunction

        file = methods.generator_file(run)
        if not (file.exists() or Path(run).exists()):
            known = named_models.listed()
            raise FileNotFoundError(
                f"run {run}: no such directory; expected one written by training.fit, or a model's "
                f"name ({known})"
            )
        is_named, folder = named_models.is_name(run), RunDirectory(run)
        if not is_named and folder.is_run and not file.exists():
            raise FileNotFoundError(
                f"run {run}: it has no weights yet, there is no generator.keras; training writes "
                "it with the first checkpoint"
            )
        self.card = named_models.card(str(run)) if is_named else None
        self.generator = generator = musical_tf.load(run)
        self.inpaint = InpaintingFunction(generator)
        self._compiled: dict[tuple[int, int], Any] = {}
        self.method: str | None = generator.method
        self.label = f"{generator.method} {generator.preset}"
        self.copies = self.inpaint.copying is not None
        if self.card is not None:
            self.recipe = dict(self.card["recipe"])
        else:
            self.recipe = folder.recipe() if folder.is_run else {}
        self.training_size = _whole_number(self.recipe.get("image_size"))
        self.source_hash = sha256(file)

    def predict(self, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Fills the holes.

        Args:
            images: `(B, H, W, 3)` uint8 RGB, any size.
            holes: `(B, H, W)` bool, True = missing; each image its own.

        Returns:
            `(B, H, W, 3)` uint8. Known pixels equal `images`.

        Raises:
            ValueError: On a wrong dtype or shape.
            RuntimeError: If TensorFlow fails, for example out of memory.
        """
        return self._outputs(images, holes)["inpainted"]

    def sources(self, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Returns where a model that copies took each pixel from.

        `(B, H, W, 2)` int32, row and column of the known pixel; a known pixel's own; -1 twice where
        the network painted.
        """
        return self._outputs(images, holes)["source"]

    def _outputs(self, images: np.ndarray, holes: np.ndarray) -> dict[str, np.ndarray]:
        import tensorflow as tf

        _check(images, holes)
        size = images.shape[1:3]
        if size not in self._compiled:
            # One graph for a size and any batch: tracing the last, smaller batch would be timed.
            self._compiled[size] = tf.function(
                self.inpaint.outputs,
                input_signature=[
                    tf.TensorSpec((None, *size, 3), tf.uint8),
                    tf.TensorSpec((None, *size), tf.uint8),
                ],
                autograph=False,
            )
        masks = holes.astype(np.uint8) * np.uint8(255)
        try:
            outputs = self._compiled[size](tf.constant(images), tf.constant(masks))
            return {name: value.numpy() for name, value in outputs.items()}
        except tf.errors.OpError as error:
            raise RuntimeError(f"TensorFlow failed: {_first_line(error)}") from error

    @property
    def has_attention(self) -> bool:
        """Whether `attention_maps` has something to say."""
        config = self.generator.config
        # Shift-Net's is called after its paper; Context Encoder and GLC have none of the kind.
        return bool(getattr(config, "attention", getattr(config, "shift", False)))

    def attention_maps(self, images: np.ndarray, holes: np.ndarray) -> dict[str, "AttentionMap"]:
        """Returns scale -> `AttentionMap`: where the attention takes its features from.

        Args:
            images, holes: As of `predict`, sides multiples of the generator's `size_multiple`.

        Raises:
            ValueError: On a wrong dtype or shape, or if the generator has no attention.
        """
        from keras import ops

        from musical_tf.conventions import normalize

        _check(images, holes)
        # Beside a tensor Keras takes no array.
        hole = ops.convert_to_tensor(holes[..., None].astype(np.float32))
        return self.generator.attention_maps([normalize(images), hole])


class OnnxPredictor:
    """An exported file, run by ONNX Runtime; every `--io` and `--layout` of the export.

    Attributes as of `RunPredictor`, from the file's metadata; without any, the label is the file's
    name and the method None.

    Raises:
        FileNotFoundError: Where there is no such file.
        ModuleNotFoundError: Without ONNX Runtime; the message says how to install it.
        ValueError: If ONNX Runtime cannot read it, or its inputs and outputs are others.
    """

    kind = "onnx"
    card = None
    has_attention = False

    def __init__(self, file: str | Path):
        file = Path(file)
        if not file.is_file():
            raise FileNotFoundError(f"ONNX file {file}: no such file")
        from musical_tf import onnx_runtime

        try:
            onnxruntime = onnx_runtime.load()
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "evaluating an ONNX file needs onnxruntime, which is not installed: "
                "pip install onnxruntime (or onnxruntime-gpu, not both)",
                name=error.name,
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = [p for p in _PROVIDERS if p in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        # Its exceptions share no base class but Exception.
        except Exception as error:
            raise ValueError(
                f"ONNX file {file}: ONNX Runtime cannot load it: {_first_line(error)}"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.metadata = {
            key.removeprefix(PREFIX): value
            for key, value in metadata.items()
            if key.startswith(PREFIX)
        }
        self._float, self._channels_first = self._read_contract(file)
        self.copies = "source" in [value.name for value in self._session.get_outputs()]
        self.method: str | None = self.metadata.get("method")
        words = (self.method, self.metadata.get("preset"), "(ONNX)")
        self.label = " ".join(filter(None, words)) if self.method else file.stem
        self.training_size = _whole_number(self.metadata.get("training_size"))
        named = ("dataset", "ablation")
        self.recipe: Recipe = {key: self.metadata[key] for key in named if key in self.metadata}
        self.source_hash = sha256(file)

    def _read_contract(self, file: Path) -> tuple[bool, bool]:
        """Returns whether values are float32 in [0, 1], and whether channels come first."""
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = [value.name for value in self._session.get_outputs()]
        if set(inputs) != {"image", "mask"} or "inpainted" not in outputs:
            raise ValueError(
                f"ONNX file {file}: expected the inputs image, mask and the output inpainted, got "
                f"{', '.join(inputs)} and {', '.join(outputs)}"
            )
        image, mask = inputs["image"], inputs["mask"]
        layout = self.metadata.get("layout")
        if layout is None and len(image.shape) == 4:
            layout = next((x for x, axis in CHANNEL_AXES.items() if image.shape[axis] == 3), None)
        known = image.type in TENSOR_TYPES.values() and layout in CHANNEL_AXES
        if not known or image.type != mask.type:
            raise ValueError(
                f"ONNX file {file}: expected uint8 or float32 images (B, H, W, 3) or (B, 3, H, W) "
                f"and masks (B, H, W) of the same type, got {image.type} {image.shape} and "
                f"{mask.type} {mask.shape}"
            )
        return image.type == TENSOR_TYPES["float32"], layout == "nchw"

    def predict(self, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Fills the holes; arguments and result as `RunPredictor.predict`."""
        result = self._run("inpainted", images, holes)
        if self._channels_first:
            result = result.transpose(0, 2, 3, 1)
        if result.shape != images.shape:
            raise RuntimeError(f"the ONNX file returned {result.shape} for images {images.shape}")
        if self._float:
            result = np.rint(np.clip(result, 0.0, 1.0) * 255.0)
        # The file itself keeps known pixels; float32 values are rounded here.
        return np.where(holes[..., None], result.astype(np.uint8), images)

    def sources(self, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """As `RunPredictor.sources`."""
        return self._run("source", images, holes)

    def attention_maps(self, images: np.ndarray, holes: np.ndarray) -> dict[str, "AttentionMap"]:
        """None: a file has no output for them."""
        return {}

    def _run(self, output: str, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        _check(images, holes)
        image: np.ndarray
        mask: np.ndarray
        if self._float:
            image, mask = images.astype(np.float32) / np.float32(255), holes.astype(np.float32)
        else:
            image, mask = images, holes.astype(np.uint8) * np.uint8(255)
        if self._channels_first:
            image = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
        try:
            (result,) = self._session.run([output], {"image": image, "mask": mask})
        # Its exceptions share no base class but Exception.
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return result


Predictor = RunPredictor | OnnxPredictor


def _whole_number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check(images: np.ndarray, holes: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images: expected uint8 (B, H, W, 3), got {images.dtype} {tuple(images.shape)}"
        )
    if holes.dtype != np.bool_ or holes.shape != images.shape[:3]:
        raise ValueError(
            f"holes: expected bool {images.shape[:3]}, got {holes.dtype} {tuple(holes.shape)}"
        )
