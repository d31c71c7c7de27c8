"""Feeds serving broken input, and checks that it refuses by its documented errors and lives on.

    python -m benchmarks.fuzz [--cases N] [--seed S] [--model FILE ...] [--only SUITE ...]

| suite | what is broken | what must happen |
|---|---|---|
| `images` | files of every format Pillow writes, as image and mask | `ImageError`, or an image |
| `session` | arrays of other types and shapes; odd sizes | `TypeError`, `ValueError`, or a fill |
| `floats` | NaN and Inf in the inputs of float32 models | what lay under a hole changes nothing |
| `models` | model files, each in a child process | `ModelError`, `InferenceError`, or a fill |
| `predict` | a folder of broken images and masks | exit code 1, whole files, no traceback |
| `http` | JSON, forms and raw bytes to a server | 200, 4xx or 503/504 with a reason |
| `hangups` | a thousand connections, most of which hang up | the server serves the next one |

Whatever a case draws comes from its own generator, seeded with `(seed, suite, case)`: `--only
images --case 123` runs that one again. Exit code 1 if anything else than the third column
happened. A child process that ONNX Runtime itself takes down is counted as `runtime crashed` and
is no failure of this project's code, which cannot catch it. Writes results/fuzz.json, unless
`--only` or `--case` left something out.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import functools
import hashlib
import http.client
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from PIL import ExifTags, Image, ImageCms

from benchmarks import measure
from musical_tf import images
from musical_tf.images.opening import register_heif
from serving.session import InferenceError, InpaintingSession, ModelError
from serving.terminal import silent_libraries
from serving.tiling import STRATEGIES
from tests.serving_model import METADATA, metadata_for, write_model

MODULE = "benchmarks.fuzz"
ROOT = Path(__file__).resolve().parents[1]

MEMORY_BOUND = 64 * 2**20
"""Bytes by which a server may have grown once all broken requests are over."""

CHILD_MEMORY = 6 * 2**30
CHILD_SECONDS = 60
SERVER_PIXELS = 300_000
SERVER_BYTES = 2**20

SHARES = {"images": 1, "session": 0.1, "floats": 0.01, "models": 0.05, "predict": 0.05, "http": 0.2}
"""Cases of each suite for one of `--cases`."""

_MAX_PIXELS = 10**6


class FuzzError(Exception):
    """Something happened that must not."""


class Tally:
    """What became of a suite's cases."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        self.figures: dict[str, Any] = {}

    def run(self, case: int, check: Callable[[], str]) -> None:
        """Counts what `check` returns; what it raises is a failure."""
        started = time.monotonic()
        try:
            self.outcomes[check()] += 1
        except FuzzError as error:
            self.fail(case, str(error))
        except Exception as error:
            self.fail(case, f"{type(error).__name__}: {error}")
        self.slowest = max(self.slowest, time.monotonic() - started)

    def fail(self, case: int, what: str) -> None:
        """Notes a failure."""
        self.outcomes["FAILED"] += 1
        self.failures.append(f"{self.suite} case {case}: {' '.join(what.split())[:400]}")

    def figure(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "cases": sum(self.outcomes.values()),
            "outcomes": dict(sorted(self.outcomes.items())),
            "slowest_seconds": round(self.slowest, 2),
            **self.figures,
        }


def generator(seed: int, suite: str, case: int) -> np.random.Generator:
    """The generator of one case."""
    return np.random.default_rng([seed, zlib.crc32(suite.encode()), case])


# ---- image files


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Some colours, `(height, width, 3)` uint8."""
    small = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@functools.cache
def seed_files() -> dict[str, bytes]:
    """A file of every format and mode that Pillow writes, with EXIF and profile where there can be.

    The formats are those that are read, and others, which must be refused.
    """
    pixels = Image.fromarray(picture(np.random.default_rng(0), 40, 50))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "lens"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # when it was made
    rich = {"exif": exif, "icc_profile": bytes(profile)}
    files: dict[str, bytes] = {}

    def add(kind: str, mode: str, **options: Any) -> None:
        stream = io.BytesIO()
        # Not every format has every mode; those it has are the seeds.
        with contextlib.suppress(OSError, ValueError, KeyError):
            # To Lab, Pillow converts by a profile that holds the time of day.
            image = Image.new(mode, pixels.size) if mode == "LAB" else pixels.convert(mode)
            image.save(stream, kind, **options)
            files[f"{kind} {mode} {' '.join(options)}".strip()] = stream.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"):
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "ICO", "TGA", "PCX"):
            add(kind, mode)
        for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
            add(kind, mode, **rich)
    for mode in ("DDS", "SGI", "JPEG2000", "EPS", "MPO", "AVIF", "SPIDER", "XBM"):
        add(mode, "RGB" if mode != "XBM" else "1")
    if register_heif():
        add("HEIF", "RGB")
    add("PDF", "RGB", creationDate=time.gmtime(0), modDate=time.gmtime(0))
    add("PNG", "P", transparency=bytes([0, 5, 200]))
    add("JPEG", "RGB", progressive=True, **rich)
    add("WEBP", "RGBA", lossless=True)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        add("TIFF", "1" if compression == "group4" else "RGB", compression=compression)
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        add(kind, "L", save_all=True, append_images=[Image.new("L", (50, 40), 9)])
    sixteen = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 32
    for kind in ("PNG", "TIFF"):
        stream = io.BytesIO()
        Image.fromarray(sixteen).save(stream, kind)
        files[f"{kind} I;16"] = stream.getvalue()
    return files


def odd_files() -> dict[str, bytes]:
    """Every odd size, every seed with a lie in its header, every seed cut off at many places."""
    files = {"empty": b"", "zeros": bytes(5000), "text": b"hello " * 200}
    rng = np.random.default_rng(1)
    for width, height in ((1, 1), (1, 9000), (9000, 1), (3, 2), (16, 16), (999, 1001)):
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF"):
            stream = io.BytesIO()
            Image.fromarray(picture(rng, height, width)).save(stream, kind)
            files[f"{kind} {width}x{height}"] = stream.getvalue()
    for kind, content in seed_files().items():
        for tenths in range(1, 10):
            files[f"{tenths}/10 of {kind}"] = content[: len(content) * tenths // 10]
        for size in ((20000, 20000), (0, 0), (65535, 65535), (2**31 - 1, 1), (9000, 9000)):
            with contextlib.suppress(struct.error):
                changed = lie(content, *size)
                if changed != content:
                    files[f"{kind} that says {size[0]}x{size[1]}"] = changed
    return files


def lie(content: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header, where its format is known here."""
    data = bytearray(content)
    if data[:4] == b"\x89PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", min(width, 65535), min(height, 65535))
    elif data[:2] == b"BM":
        data[18:26] = struct.pack("<ii", width, height)
    elif data[:1] == b"P" and data[1:2] in b"456":
        head, _, rest = content.partition(b"\n50 40\n")
        data = bytearray(head + b"\n%d %d\n" % (width, height) + rest)
    elif data[:2] == b"\xff\xd8":
        found = re.search(rb"\xff[\xc0-\xc2]\x00.\x08", content, re.DOTALL)
        if found:
            data[found.end() : found.end() + 4] = struct.pack(
                ">HH", min(height, 65535), min(width, 65535)
            )
    elif data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        data[24:30] = (min(width, 2**24) - 1 & 0xFFFFFF).to_bytes(3, "little") * 2
    elif data[:4] == b"II*\0":
        start = struct.unpack("<I", data[4:8])[0]
        for entry in range(start + 2, start + 2 + 12 * data[start], 12):
            tag = struct.unpack("<H", data[entry : entry + 2])[0]
            if tag in (256, 257):
                value = width if tag == 256 else height
                data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Truncates, flips, overwrites, inserts, repeats, or lies."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 3))):
        length = max(1, len(data))
        kind = rng.integers(8)
        if kind <= 1:
            del data[int(rng.integers(0, length)) :]
        elif kind == 2:
            for position in rng.integers(0, length, rng.integers(1, 30)):
                if position < len(data):
                    data[position] ^= 1 << int(rng.integers(8))
        elif kind == 3:  # most of a format's logic is in its first bytes
            for position in rng.integers(0, min(400, length), rng.integers(1, 10)):
                if position < len(data):
                    data[position] = int(rng.integers(256))
        elif kind == 4:
            position = int(rng.integers(0, length))
            data[position:position] = rng.bytes(int(rng.integers(1, 60)))
        elif kind == 5:
            start, end = sorted(int(value) for value in rng.integers(0, length, 2))
            data[start:start] = data[start:end][:2000]
        elif kind == 6:
            start = int(rng.integers(0, length))
            numbers = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"]
            data[start : start + 4] = numbers[int(rng.integers(4))]
        else:
            with contextlib.suppress(struct.error, IndexError):
                data = bytearray(lie(bytes(data), *(int(2 ** rng.uniform(0, 31)) for _ in "wh")))
    return bytes(data)


def broken_file(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    """Random bytes, or a mutated file."""
    if rng.random() < 0.05:
        magics = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b"GIF89a"]
        magic = magics[int(rng.integers(len(magics)))]
        return magic + rng.bytes(int(rng.integers(0, 3000)))
    return mutate(rng, seeds[int(rng.integers(len(seeds)))])


def read_both_ways(content: bytes, rng: np.random.Generator) -> str:
    """Reads a file as image and as mask, and writes what could be read; returns the outcome."""
    outcome = "refused"
    max_pixels = _MAX_PIXELS if rng.random() < 0.98 else images.MAX_PIXELS
    with contextlib.suppress(images.ImageError):
        polarity = images.POLARITIES[int(rng.integers(2))]
        threshold = int(rng.integers(0, 256))
        mask = images.read_mask(
            io.BytesIO(content),
            name="mask",
            polarity=polarity,
            threshold=threshold,
            max_pixels=max_pixels,
        )
        outcome = "a mask only"
        if mask.dtype != bool or mask.ndim != 2 or mask.size > max_pixels:
            raise FuzzError(f"a mask of {mask.dtype} {mask.shape}")
    try:
        photograph = images.read_photograph(
            io.BytesIO(content), name="image", max_pixels=max_pixels
        )
    except images.ImageError as error:
        if not str(error).startswith("image: "):
            raise FuzzError(f"a message without a name: {error}") from error
        return outcome
    if photograph.pixels.dtype != np.uint8 or photograph.pixels.shape[2:] != (3,):
        raise FuzzError(f"pixels of {photograph.pixels.dtype} {photograph.pixels.shape}")
    if photograph.pixels.size > 3 * _MAX_PIXELS:
        return "read, and too large to be written four times"
    for image_format in (None, "PNG", "JPEG", "WEBP", "TIFF"):
        try:
            written = images.encode_photograph(photograph, photograph.pixels, image_format)
        except images.ImageError:
            continue
        if image_format == "JPEG" or (image_format is None and photograph.format == "JPEG"):
            continue
        again = images.read_photograph(io.BytesIO(written), name="what was written")
        if not np.array_equal(again.pixels, photograph.pixels):
            raise FuzzError(f"{image_format or photograph.format} changed pixels")
        alpha = photograph.alpha  # which WebP leaves out if all of it is opaque
        kept = np.array_equal(again.alpha, alpha) or (again.alpha is None and alpha.min() == 255)
        if alpha is not None and not kept:
            raise FuzzError(f"{image_format or photograph.format} changed alpha")
    return "read and written"


def fuzz_images(seed: int, cases: range) -> Tally:
    """`images`: in turns an odd file, until there are no more, and a broken one."""
    tally, odd, seeds = Tally("images"), list(odd_files().values()), list(seed_files().values())
    generator(seed, "odd files", 0).shuffle(odd)
    tally.figures["odd_files"] = len(odd)
    with warnings.catch_warnings(), silent_libraries():
        warnings.simplefilter("ignore")  # Pillow warns of what it stumbles over
        for case in cases:
            rng = generator(seed, "images", case)
            is_odd = case % 2 == 0 and case // 2 < len(odd)
            content = odd[case // 2] if is_odd else broken_file(rng, seeds)
            tally.run(case, lambda content=content, rng=rng: read_both_ways(content, rng))
    return tally


# ---- the session's own interface


def odd_argument(rng: np.random.Generator) -> Any:
    """Something that may be passed for an image or a hole."""
    shape = tuple(int(side) for side in rng.integers(0, 40, int(rng.integers(0, 5))))
    dtype = ["uint8", "bool", "float32", "float64", "int64", "uint16", "complex64", "U3", "O"][
        int(rng.integers(9))
    ]
    choices = [None, 3, "image.png", b"bytes", [[1, 2], [3, 4]], object(), np.float32(1)]
    choices += [Image.new("RGB", (8, 8)), np.zeros(shape, dtype), np.full((20, 20, 3), np.nan)]
    choices += [np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), bool)]
    return choices[int(rng.integers(len(choices)))]


def call_session(session: InpaintingSession, rng: np.random.Generator) -> str:
    """One call, right or wrong; returns the outcome."""
    strategy: Any = STRATEGIES[int(rng.integers(3))]
    if rng.random() < 0.5:
        if rng.random() < 0.2:
            strategy = [None, "zoom", 3, []][int(rng.integers(4))]
        working_size = [None, 64, 0, -5, 1, 10**9, 2.5, "big", None][int(rng.integers(9))]
        arguments = odd_argument(rng), odd_argument(rng)
        try:
            if rng.random() < 0.3:
                session.inpaint_batch(*arguments)
            else:
                session.inpaint(*arguments, strategy, working_size)
        except (TypeError, ValueError) as error:
            if not str(error):
                raise FuzzError("an error without a message") from error
            return f"{type(error).__name__}"
        return "filled"
    sizes = [(1, 1), (1, 9000), (9000, 1), (2, 3), (15, 17), (40, 700)]
    height, width = sizes[int(rng.integers(len(sizes)))]
    if rng.random() < 0.5:
        height, width = (int(2 ** rng.uniform(0, 9)) for _ in "hw")
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    hole = rng.random((height, width)) < rng.choice([0.0, 0.001, 0.1, 0.5, 0.99, 1.0])
    try:
        filled = session.inpaint(image, hole, strategy)
    except ValueError as error:
        if "covers the whole image" in str(error) or "GiB" in str(error):
            return "refused hole or size"
        raise
    if filled.shape != image.shape or filled.dtype != np.uint8:
        raise FuzzError(f"{filled.dtype} {filled.shape} for an image of {image.shape}")
    if not np.array_equal(filled[~hole], image[~hole]):
        raise FuzzError(f"known pixels of {image.shape} have changed")
    return "filled"


def fuzz_session(seed: int, cases: range, paths: list[Path]) -> Tally:
    """`session`: calls of every kind, every tenth on the first model, the others on the last."""
    tally = Tally("session")
    first, last = (
        InpaintingSession(path, ["cpu"], threads=1, memory_limit=2**29)
        for path in (paths[0], paths[-1])
    )
    for case in cases:
        rng, session = generator(seed, "session", case), last if case % 10 else first
        tally.run(case, lambda rng=rng, session=session: call_session(session, rng))
    return tally


# ---- float32 models, as an application runs them: without our code


def run_floats(path: Path, rng: np.random.Generator) -> str:
    """One run with values that no photograph has; the model must hold its contract."""
    session = InpaintingSession(path, ["cpu"], threads=1)
    runtime, is_nchw = session._session, session.contract.layout == "nchw"
    height, width = (int(side) for side in rng.integers(16, 65, 2))
    image = rng.random((1, height, width, 3), dtype=np.float32)
    hole = np.zeros((1, height, width), bool)
    hole[:, height // 4 : height // 2, width // 4 : width // 2] = True

    def run(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feed = image.transpose(0, 3, 1, 2) if is_nchw else image
        (filled,) = runtime.run(None, {"image": np.ascontiguousarray(feed), "mask": mask})
        return filled.transpose(0, 2, 3, 1) if is_nchw else filled

    clean = run(image, hole.astype(np.float32))
    if not np.isfinite(clean).all():
        raise FuzzError("a clean image gave values that are not finite")
    value = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-42, -0.0], np.float32))
    where = int(rng.integers(3))
    broken, mask = image.copy(), hole.astype(np.float32)
    if where == 0:
        broken[hole] = value
        if not np.array_equal(run(broken, mask), clean):
            raise FuzzError(f"{value} under the hole changed the result")
        return "under the hole: no influence"
    if where == 1:
        broken[0, :: int(rng.integers(1, 9)), 0] = value
        filled = run(broken, mask)
        known = ~hole
        if not np.array_equal(filled[known], broken[known], equal_nan=True):
            raise FuzzError(f"{value} among the known pixels changed known pixels")
        finite = np.isfinite(filled[hole]).all()
        return f"known pixels: hole {'finite' if finite else 'not finite'}"
    mask[0, 0, 0] = value
    run(image, mask)
    return "in the mask: no crash"


def fuzz_floats(seed: int, cases: range, paths: list[Path]) -> Tally:
    """`floats`: each of the float32 models among `paths`."""
    tally = Tally("floats")
    floats = [p for p in paths if InpaintingSession(p, ["cpu"]).contract.io == "float32"]
    for case in cases if floats else ():
        rng = generator(seed, "floats", case)
        tally.run(case, lambda rng=rng, case=case: run_floats(floats[case % len(floats)], rng))
    return tally


# ---- model files


def write_foreign_model(path: Path, kind: int) -> None:
    """A sound ONNX model that is none of ours, but claims to be."""
    uint8, number = TensorProto.UINT8, TensorProto.FLOAT
    any_size = ["batch", "height", "width"]
    tensor = helper.make_tensor_value_info
    if kind == 0:  # gives back the image, hole and all
        inputs = [tensor("image", uint8, [*any_size, 3]), tensor("mask", uint8, any_size)]
        outputs = [tensor("inpainted", uint8, [*any_size, 3])]
        nodes = [helper.make_node("Identity", ["image"], ["inpainted"])]
    elif kind == 1:  # a classifier
        inputs, outputs = [tensor("x", number, [1, 4])], [tensor("y", number, [1, 4])]
        nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    elif kind == 2:  # the right names, and a result of another size
        inputs = [tensor("image", uint8, [*any_size, 3]), tensor("mask", uint8, any_size)]
        outputs = [tensor("inpainted", uint8, ["a", "b", "c", "d"])]
        nodes = [helper.make_node("Concat", ["image", "image"], ["inpainted"], axis=1)]
    elif kind == 3:  # the right names, and a result that is a sequence
        inputs = [tensor("image", uint8, [*any_size, 3]), tensor("mask", uint8, any_size)]
        outputs = [helper.make_tensor_sequence_value_info("inpainted", uint8, None)]
        nodes = [helper.make_node("SequenceConstruct", ["image"], ["inpainted"])]
    elif kind == 4:  # fails when it runs
        inputs = [tensor("image", uint8, [*any_size, 3]), tensor("mask", uint8, any_size)]
        outputs = [tensor("inpainted", uint8, ["a", "b", "c", "d"])]
        nodes = [
            helper.make_node("Shape", ["mask"], ["shape"]),
            helper.make_node("Reshape", ["image", "shape"], ["inpainted"]),
        ]
    else:  # an operator that nobody has
        inputs = [tensor("image", uint8, [*any_size, 3]), tensor("mask", uint8, any_size)]
        outputs = [tensor("inpainted", uint8, [*any_size, 3])]
        nodes = [helper.make_node("Inpaint", ["image", "mask"], ["inpainted"], domain="nobody")]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    helper.set_model_props(model, METADATA)
    path.write_bytes(model.SerializeToString())


def write_broken_model(path: Path, rng: np.random.Generator, whole: list[bytes]) -> None:
    """A file that may be an ONNX model, may be ours, and may run."""
    kind = int(rng.integers(10))
    if kind == 0:
        path.write_bytes(rng.bytes(int(rng.integers(0, 5000))))
    elif kind <= 2:
        content = whole[int(rng.integers(len(whole)))]
        path.write_bytes(content[: int(rng.integers(0, len(content)))])
    elif kind <= 4:
        path.write_bytes(mutate(rng, whole[0]))
    elif kind == 5:  # where the nodes and their attributes are, rather than the weights
        content = bytearray(whole[int(rng.integers(len(whole)))])
        for position in rng.integers(0, min(20_000, len(content)), 5):
            content[position] = int(rng.integers(256))
        path.write_bytes(content)
    elif kind == 6:
        write_foreign_model(path, int(rng.integers(6)))
    elif kind == 7:
        value = float(rng.choice([np.nan, np.inf, -np.inf, 1e38]))
        write_model(path, "float32", result=value)
    else:
        names = [name.removeprefix("musical_tf.") for name in METADATA]
        values = [None, "", "0", "-1", "1e9", "9" * 4000, "\u0663\u0662", "[" * 100_000, "null"]
        values += ["NaN", "nchw", "float32", "x" * 10**6, "above 127 = hole", "2", "16"]
        changes = {
            str(rng.choice(names)): values[int(rng.integers(len(values)))]
            for _ in range(int(rng.integers(1, 4)))
        }
        write_model(path, metadata=metadata_for(**{"io": "uint8", "layout": "nhwc", **changes}))


def open_model(path: Path) -> str:
    """Opens a model file and runs it if it opens; returns the outcome."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    hole = np.zeros((40, 50), bool)
    hole[10:30, 10:30] = True
    try:
        session = InpaintingSession(path, ["cpu"], threads=1)
    except ModelError as error:
        if str(path) not in str(error):
            raise FuzzError(f"a message without the file's name: {error}") from error
        return "refused"
    json.dumps(session.describe())
    try:
        filled = session.inpaint(image, hole)
    except InferenceError:
        return "failed when it ran"
    if not np.array_equal(filled[~hole], image[~hole]):
        raise FuzzError("known pixels have changed")
    return "filled"


def open_models(connection: Any) -> None:
    """A child process: opens what it is told to, until it is told nothing more, or dies."""
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what ONNX Runtime says of its own accord
    while path := connection.recv():
        try:
            connection.send((open_model(Path(path)), ""))
        except MemoryError:
            connection.send(("not enough memory", ""))
        except Exception as error:
            connection.send(("", f"{type(error).__name__}: {error}"))


def fuzz_models(seed: int, cases: range, paths: list[Path]) -> Tally:
    """`models`: each file in a child process, which a crash takes down alone."""
    tally, context = Tally("models"), multiprocessing.get_context("spawn")
    whole = [path.read_bytes() for path in paths]
    child, connection = None, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.onnx"
        for case in cases:
            write_broken_model(path, generator(seed, "models", case), whole)
            if child is None:
                connection, other = context.Pipe()
                child = context.Process(target=open_models, args=(other,), daemon=True)
                child.start()
                other.close()
            started = time.monotonic()
            connection.send(str(path))
            try:
                if not connection.poll(CHILD_SECONDS):
                    child.kill()
                    tally.outcomes["runtime never came back"] += 1
                    child = None
                    continue
                outcome, failure = connection.recv()
            except (EOFError, ConnectionError):
                child.join()
                name = signal.Signals(-child.exitcode).name if child.exitcode < 0 else "exit"
                tally.outcomes[f"runtime crashed ({name})"] += 1
                child = None
                continue
            finally:
                tally.slowest = max(tally.slowest, time.monotonic() - started)
            if failure:
                tally.fail(case, failure)
            else:
                tally.outcomes[outcome] += 1
    if child is not None:
        connection.send("")
        child.join()
    return tally


# ---- the command line


def fuzz_predict(seed: int, cases: range, model: Path) -> Tally:
    """`predict`: one folder of broken images and masks, among them some that are whole."""
    tally, seeds = Tally("predict"), list(seed_files().values())
    suffixes = [suffix for suffix in images.READABLE if suffix != ".jpeg"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("images", "masks"):
            (folder / part).mkdir()
        hole = np.zeros((40, 50), bool)
        hole[10:20, 10:20] = True
        for case in cases:
            rng = generator(seed, "predict", case)
            path = folder / "images" / f"{case:06}{suffixes[case % len(suffixes)]}"
            path.write_bytes(broken_file(rng, seeds))
            mask = folder / "masks" / f"{case:06}.png"
            if rng.random() < 0.3:
                mask.write_bytes(broken_file(rng, seeds))
            else:
                Image.fromarray(hole).save(mask)
        good = picture(np.random.default_rng(0), 40, 50)
        for part, content in (("images", good), ("masks", hole)):
            Image.fromarray(content).save(folder / part / "zz-good.png")
        inputs = {path: digest(path) for path in folder.rglob("*") if path.is_file()}
        command = [sys.executable, "-m", "serving.predict", "--model", str(model), "--threads", "1"]
        for part, flag in (("images", "image"), ("masks", "mask"), ("out", "output")):
            command += [f"--{flag}", str(folder / part)]
        started = time.monotonic()
        done = subprocess.run(
            [*command, "--max-pixels", str(_MAX_PIXELS)], cwd=ROOT, capture_output=True, text=True
        )
        tally.slowest = time.monotonic() - started
        errors = [line for line in done.stderr.splitlines() if ": error: " in line]
        written = list((folder / "out").rglob("*"))
        tally.outcomes["reported"] = len(errors)
        tally.outcomes["written"] = len(written) - 1  # the good one is no case
        for number, problem in enumerate(
            [
                any(not line.startswith("musical-inpaint: ") for line in done.stderr.splitlines())
                and f"something else than messages: {done.stderr[-600:]}",
                done.returncode != (1 if errors else 0) and f"exit code {done.returncode}",
                len(errors) + len(written) != len(cases) + 1
                and f"{len(errors)} reported, {len(written)} written, {len(cases) + 1} images",
                any(digest(path) != before for path, before in inputs.items())
                and "an input was changed",
                any(path.name.startswith(".partial-") for path in written) and "a partial file",
                not (folder / "out" / "zz-good.png").exists() and "the good image was not filled",
            ]
        ):
            if problem:
                tally.fail(number, problem)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for path in written:
                try:
                    images.read_photograph(path)
                except images.ImageError as error:
                    tally.fail(0, f"what was written cannot be read: {error}")
    return tally


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- the server


class Server:
    """`python -m serving.server` in a process of its own, on a free port of this machine alone."""

    def __init__(self, model: Path) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  `stop` closes it
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.server", "--model", str(model), "--port", "0"),
                *("--max-bytes", str(SERVER_BYTES), "--max-pixels", str(SERVER_PIXELS)),
                *("--timeout", "20", "--threads", "1", "--no-access-log"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            self.process.kill()
            self.log.seek(0)
            raise RuntimeError(f"the server did not start: {line}{self.log.read()}")
        self.port = int(found[1])
        self.image = picture(np.random.default_rng(0), 48, 64)
        self.hole = np.zeros((48, 64), bool)
        self.hole[10:30, 20:40] = True
        self.expected = None

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {n.replace("_", "-"): v for n, v in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()

    def good_body(self) -> bytes:
        """A request in JSON that must be answered with 200."""
        parts = {}
        for name, pixels in (("image", self.image), ("mask", self.hole)):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            parts[name] = base64.b64encode(stream.getvalue()).decode()
        return json.dumps(parts).encode()

    def check_good(self) -> None:
        """Sends a request that must be answered as the first one was."""
        deadline = time.monotonic() + 60
        while True:
            status, _, body = self.request(
                "POST", "/v1/inpaint", self.good_body(), Content_Type="application/json"
            )
            # Requests that hung up may still be in the queue.
            if status != 503 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if status != 200:
            raise FuzzError(f"a good request got {status} {body[:200]!r}")
        result = json.loads(body)["image"]
        self.expected = self.expected or result
        if result != self.expected:
            raise FuzzError("a good request got another result than the first one")

    def memory(self) -> int:
        """Bytes that the process holds now."""
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024

    def stop(self) -> str:
        """Ends it; returns what it has logged."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.seek(0)
        with self.log:
            return self.log.read()


@contextlib.contextmanager
def serving(model: Path, tally: Tally) -> Iterator[Server]:
    """A server that has been used; afterwards it must serve, hold no memory, and end well."""
    server = Server(model)
    try:
        wait_until_ready(server)
        for _ in range(50):
            server.check_good()
        before = server.memory()
        yield server
        if server.process.poll() is not None:
            tally.fail(-1, f"the server is gone, exit code {server.process.returncode}")
            return
        try:
            server.check_good()
        except Exception as error:
            tally.fail(-1, f"afterwards, {error}")
        grown = server.memory() - before
        tally.figures["memory_before"], tally.figures["memory_grown"] = before, grown
        tally.figures["memory_bound"] = MEMORY_BOUND
        if grown > MEMORY_BOUND:
            tally.fail(-1, f"the server has grown by {grown / 2**20:.0f} MiB")
    finally:
        log = server.stop()
        if server.process.returncode != 0:
            tally.fail(-1, f"the server ended with {server.process.returncode}")
        if "Traceback" in log:
            tally.fail(-1, f"a traceback in its log: {log[log.index('Traceback') :][-300:]}")


def wait_until_ready(server: Server) -> None:
    """Waits for the first run of the model."""
    deadline = time.monotonic() + 60
    while server.request("GET", "/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the server does not get ready")
        time.sleep(0.05)


def odd_json(rng: np.random.Generator, depth: int = 0) -> Any:
    """A JSON value of any kind."""
    kind = int(rng.integers(9 if depth < 4 else 7))
    if kind == 7:
        return [odd_json(rng, depth + 1) for _ in range(int(rng.integers(4)))]
    if kind == 8:
        return {f"k{i}": odd_json(rng, depth + 1) for i in range(int(rng.integers(4)))}
    values = [None, True, -1, 10**30, float("nan"), "text", "\ud800 \0", "A" * 5000, 0.5, ""]
    return values[int(rng.integers(len(values)))]


def odd_fields(rng: np.random.Generator, files: list[bytes], server: Server) -> dict[str, Any]:
    """The fields of a request, of which one or more are wrong."""
    fields = json.loads(server.good_body())
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(6))
        name = str(rng.choice(["image", "mask"]))
        if kind <= 2:
            fields[name] = base64.b64encode(broken_file(rng, files)).decode()
        elif kind == 3:
            options = ["strategy", "threshold", "invert", "dilate", "format", "image", "mask", "no"]
            fields[str(rng.choice(options))] = odd_json(rng)
        elif kind == 4:
            fields.pop(name, None)
        else:
            fields[name] = "data:image/png;base64," + str(fields.get(name))[: rng.integers(3000)]
    return fields


def odd_body(rng: np.random.Generator, files: list[bytes], server: Server) -> tuple[bytes, str]:
    """A body and its type."""
    kind = int(rng.integers(10))
    if kind <= 3:
        body = json.dumps(odd_fields(rng, files, server)).encode("utf-8", "surrogatepass")
        if kind == 3:
            body = mutate(rng, body)
        return body, "application/json"
    if kind == 4:
        deep = [
            b"[" * 100_000,
            b'{"image":' * 50_000,
            b"[" * 500 + b"]" * 500,
            b"nul",
            b"",
            b"\xff",
        ]
        deep += [json.dumps(odd_json(rng)).encode("utf-8", "surrogatepass"), b"1" * 10_000]
        deep += [b'{"image": "", "image": ""}', b'{"image": 1e999}', rng.bytes(300)]
        return deep[int(rng.integers(len(deep)))], "application/json"
    if kind == 5:
        types = ["text/plain", "multipart/form-data", "application/json; charset=utf-16", "", "a/b"]
        return rng.bytes(int(rng.integers(0, 3000))), types[int(rng.integers(len(types)))]
    boundary = b"limit"
    body = b""
    for name, value in odd_fields(rng, files, server).items():
        is_file = name in ("image", "mask")
        with contextlib.suppress(Exception):
            value = base64.b64decode(value) if is_file else str(value).encode()
        if not isinstance(value, bytes):
            value = str(value).encode("utf-8", "replace")
        file_name = b'; filename="a.png"' if is_file != (rng.random() < 0.1) else b""
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            boundary,
            name.encode(),
            file_name,
            value,
        )
        if rng.random() < 0.05:
            body += body[:10_000]
    body += b"--limit--\r\n"
    if kind >= 8:
        body = mutate(rng, body)
    if rng.random() < 0.02:
        body += bytes(SERVER_BYTES)
    return body, f"multipart/form-data; boundary={boundary.decode()}"


def check_answer(status: int, media_type: str, body: bytes) -> str:
    """The outcome of a request, if its answer is one that may come."""
    if status == 200:
        if media_type.startswith("application/json"):
            body = base64.b64decode(json.loads(body)["image"])
        images.read_photograph(io.BytesIO(body), name="answer")
        return "200"
    if not (400 <= status < 500 or status in (503, 504)):
        raise FuzzError(f"{status} {body[:300]!r}")
    error = json.loads(body)["error"]
    if not (isinstance(error["code"], str) and error["message"]):
        raise FuzzError(f"{status} without a reason: {body[:300]!r}")
    return f"{status} {error['code']}"


def fuzz_http(seed: int, cases: range, model: Path) -> Tally:
    """`http`: broken requests from four clients at a time."""
    tally, files = Tally("http"), list(seed_files().values())
    lock, waiting = threading.Lock(), iter(cases)

    def client(server: Server) -> None:
        while True:
            with lock:
                case = next(waiting, None)
            if case is None:
                return
            rng = generator(seed, "http", case)
            body, media_type = odd_body(rng, files, server)

            def check(body: bytes = body, media_type: str = media_type) -> str:
                try:
                    answer = server.request("POST", "/v1/inpaint", body, Content_Type=media_type)
                except (BrokenPipeError, ConnectionResetError):
                    # It has answered and closed before all of a body came that is too large.
                    if len(body) > SERVER_BYTES:
                        return "closed on a body that is too large"
                    raise
                return check_answer(*answer)

            with lock_free(tally) as run:
                run(case, check)

    @contextlib.contextmanager
    def lock_free(tally: Tally) -> Iterator[Callable[[int, Callable[[], str]], None]]:
        one = Tally(tally.suite)
        yield one.run
        with lock:
            tally.outcomes += one.outcomes
            tally.failures += one.failures
            tally.slowest = max(tally.slowest, one.slowest)

    with serving(model, tally) as server:
        threads = [threading.Thread(target=client, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tally


async def one_connection(server: Server, rng: np.random.Generator, request: bytes) -> str:
    """A client that hangs up, or not; returns the outcome."""
    await asyncio.sleep(float(rng.uniform(0, 0.5)))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError:
        return "no connection"
    kind = int(rng.integers(7))
    try:
        if kind == 0:
            return "hung up at once"
        if kind in (1, 2):
            writer.write(request[: int(rng.integers(1, len(request)))])
            await asyncio.sleep(float(rng.uniform(0, 0.5)))
            return "hung up within the request"
        pieces = 5 if kind == 6 else 1
        for start in range(0, len(request), -(-len(request) // pieces)):
            writer.write(request[start : start + -(-len(request) // pieces)])
            await writer.drain()
            await asyncio.sleep(0.2 * (pieces > 1))
        if kind in (3, 4):
            await asyncio.sleep(float(rng.uniform(0, 1)))
            return "hung up before the answer"
        answer = await asyncio.wait_for(reader.read(), 120)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        media_type = re.search(rb"(?i)content-type: (\S+)", head)[1].decode()
        return f"answered {check_answer(status, media_type, body)}"
    except (ConnectionError, TimeoutError) as error:
        return f"connection lost: {type(error).__name__}"
    finally:
        if kind == 2 or kind == 4:  # a reset instead of a polite end
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def fuzz_hangups(seed: int, cases: range, model: Path) -> Tally:
    """`hangups`: all connections at once."""
    tally = Tally("hangups")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(cases) + 200
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, needed), hard))

    async def all_connections(server: Server) -> None:
        body = server.good_body()
        request = (
            b"POST /v1/inpaint HTTP/1.1\r\nHost: fuzz\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        ) + body
        results = await asyncio.gather(
            *(one_connection(server, generator(seed, "hangups", case), request) for case in cases),
            return_exceptions=True,
        )
        for case, result in zip(cases, results, strict=True):
            if isinstance(result, BaseException):
                tally.fail(case, f"{type(result).__name__}: {result}")
            elif result.startswith(("connection lost", "no connection")):
                tally.fail(case, result)
            else:
                tally.outcomes[result] += 1

    with serving(model, tally) as server:
        started = time.monotonic()
        asyncio.run(all_connections(server))
        tally.slowest = time.monotonic() - started
    return tally


# ---- all of it


def run_suites(
    seed: int, counts: dict[str, range], paths: list[Path]
) -> Iterator[tuple[str, Tally]]:
    """Runs the suites that have cases, on the first model of `paths` where one is enough."""
    suites: dict[str, Callable[[range], Tally]] = {
        "images": lambda cases: fuzz_images(seed, cases),
        "session": lambda cases: fuzz_session(seed, cases, paths),
        "floats": lambda cases: fuzz_floats(seed, cases, paths),
        "models": lambda cases: fuzz_models(seed, cases, paths),
        "predict": lambda cases: fuzz_predict(seed, cases, paths[0]),
        "http": lambda cases: fuzz_http(seed, cases, paths[0]),
        "hangups": lambda cases: fuzz_hangups(seed, cases, paths[0]),
    }
    for name, cases in counts.items():
        yield name, suites[name](cases)


def count_cases(cases: int, connections: int) -> dict[str, range]:
    """How many cases of each suite `--cases` means."""
    counts = {name: range(max(1, round(cases * share))) for name, share in SHARES.items()}
    return counts | {"hangups": range(connections)}


def tiny_models(folder: Path) -> list[Path]:
    """One model of each kind, which fill with a mean; the first is uint8."""
    return [
        write_model(folder / f"{io}_{layout}.onnx", io, layout)
        for io in ("uint8", "float32")
        for layout in ("nhwc", "nchw")
    ]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    suites = (*SHARES, "hangups")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--model",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="exported models, beside tiny ones that are made on the spot; the first one serves",
    )
    parser.add_argument("--only", nargs="+", choices=suites, default=suites, metavar="SUITE")
    parser.add_argument("--case", type=int, metavar="N", help="this one of each suite alone")
    arguments = parser.parse_args(argv)
    if arguments.cases < 1 or arguments.connections < 1 or arguments.seed < 0:
        print(f"{parser.prog}: error: numbers must be above 0", file=sys.stderr)
        return 2
    counts = count_cases(arguments.cases, arguments.connections)
    counts = {name: cases for name, cases in counts.items() if name in arguments.only}
    if arguments.case is not None:
        counts = {name: range(arguments.case, arguments.case + 1) for name in counts}
    tallies = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            paths = [path.resolve() for path in arguments.model]
            for path in paths:
                InpaintingSession(path, ["cpu"])
            paths += tiny_models(Path(folder))
            for name, tally in run_suites(arguments.seed, counts, paths):
                tallies[name] = tally
                print(
                    f"{name}: {sum(tally.outcomes.values())} cases, slowest {tally.slowest:.1f} s"
                )
                for outcome, number in tally.outcomes.most_common():
                    print(f"  {number:7} {outcome}")
                for key, value in tally.figures.items():
                    unit = f"{value / 2**20:7.0f} MiB" if key.startswith("memory") else f"{value:7}"
                    print(f"  {unit} {key}")
                sys.stdout.flush()
        except (OSError, ValueError, RuntimeError) as error:
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
            return 2
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    total = sum(sum(tally.outcomes.values()) for tally in tallies.values())
    print(f"{total} cases, {len(failures)} failures, {time.monotonic() - started:.0f} s")
    for failure in failures[:50]:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
    if set(tallies) == set(suites) and arguments.case is None:
        command = ["--cases", str(arguments.cases), "--connections", str(arguments.connections)]
        command += ["--seed", str(arguments.seed)]
        if arguments.model:
            command += ["--model", *(path.name for path in arguments.model)]
        figures = {
            "cases": total,
            "failures": failures,
            "suites": {name: tally.figure() for name, tally in tallies.items()},
        }
        measure.keep("fuzz", measure.record(MODULE, command, figures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
