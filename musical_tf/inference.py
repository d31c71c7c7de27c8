"""From a generator to the function an application calls: image and mask in, finished picture out.

A generator wants [-1, 1], sides divisible by 16, and returns a raw prediction. An application has
gray levels, any size, and wants its own pixels back. `InpaintingFunction` stands between the two.
Every exported file and every evaluation of a Keras model runs its arithmetic.
"""

from typing import Any

from keras import ops

from musical_tf.contract import LAYOUTS, MASK_POLARITIES, MASK_THRESHOLDS, VALUE_RANGES
from musical_tf.conventions import Tensor, composite, mask_image, normalize, to_uint8
from musical_tf.layers import OffsetCopying


class InpaintingFunction:
    """The whole mapping `(image, mask) -> inpainted` around a generator, in the caller's format.

    1. mask -> hole `(B, H, W, 1)`, 1 = missing.
    2. image -> [-1, 1], channels last.
    3. What lies under the hole is erased, NaN and infinity included.
    4. Both are padded at the bottom and on the right to a multiple of `generator.size_multiple` by
       reflection, the hole with the image: the reflection of a known pixel is known, the reflection
       of a missing one is missing. (Padding that is known everywhere would show a hole at the
       border as a gray area that the attention may copy from.)
    5. `generator([image, hole])`, then crop.
    6. If `generator.config.copying` is True, known pixels are copied into the hole with the
       prediction as guide, see `musical_tf.layers.OffsetCopying`.
    7. Prediction -> the caller's format, and only hole pixels are taken from it: known pixels are
       the caller's own, bit for bit, never converted back and forth.

    Hence an empty mask returns the image, and what lies under the hole never influences the result.

    Args:
        generator: A generator as `musical_tf.create` or `musical_tf.load` returns it: called as
            `generator([image, hole], training=False)`, with an integer attribute `size_multiple`.
        io: "uint8": image and result in [0, 255], a mask value above 127 is a hole. "float32":
            image and result in [0, 1], a mask value above 0.5 is a hole; known values outside
            [0, 1] come back as they were and are clipped for the generator.
        layout: "nhwc": image and result `(B, H, W, 3)`. "nchw": `(B, 3, H, W)`. The mask is
            `(B, H, W)` in both.

    Call arguments:
        image: RGB, the shape and type that `layout` and `io` say. Any height and width.
        mask: `(B, H, W)` of the same type. Each image has its own.

    Returns:
        The inpainted image, shape and type of `image`. `outputs` returns more.

    Raises:
        ValueError: If `io` or `layout` is unknown, or `generator` has no valid `size_multiple`.

    Example:
        >>> inpaint = InpaintingFunction(musical_tf.load("runs/celeba"))
        >>> picture = inpaint(photograph[None], mask[None])[0]
    """

    def __init__(self, generator: Any, io: str = "uint8", layout: str = "nhwc"):
        if io not in VALUE_RANGES:
            raise ValueError(f"io must be one of {', '.join(VALUE_RANGES)}, got {io!r}")
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        multiple = getattr(generator, "size_multiple", None)
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(
                "generator.size_multiple must be a positive integer, the number its input's height "
                f"and width are multiples of, got {multiple!r}"
            )
        self.generator = generator
        self.io = io
        self.layout = layout
        copies = getattr(getattr(generator, "config", None), "copying", False)
        self.copying = OffsetCopying(name="copying") if copies else None

    @property
    def contract(self) -> str:
        """Version of the contract of a file that this is exported to."""
        return "1" if self.copying is None else "2"

    @property
    def value_range(self) -> str:
        """The image's value range in words, "[0, 255]" or "[0, 1]"."""
        return VALUE_RANGES[self.io]

    @property
    def mask_polarity(self) -> str:
        """What a mask value means in words, for example "above 127 = hole"."""
        return MASK_POLARITIES[self.io]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """The image's shape, None where any size is taken."""
        return (None, None, None, 3) if self.layout == "nhwc" else (None, 3, None, None)

    @property
    def mask_shape(self) -> tuple[int | None, ...]:
        """The mask's shape, None where any size is taken."""
        return (None, None, None)

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        return self.outputs(image, mask)["inpainted"]

    def outputs(self, image: Tensor, mask: Tensor, seed: Tensor | int = 0) -> dict[str, Tensor]:
        """Returns the inpainted image and how it was made.

        Args:
            image, mask: As of a call.
            seed: Scalar integer, which of the plausible fills if known pixels are copied; see
                `musical_tf.layers.OffsetCopying`.

        Returns:
            The outputs of `contract` by name, see `musical_tf.contract.OUTPUTS`. `"inpainted"`: as
            of a call. `"source"`: `(B, H, W, 2)` int32, row and column of the known pixel that a
            pixel was copied from; a known pixel's own; -1 twice where the network painted.
            `"predicted"`: like `inpainted`, the network's own fill.
        """
        image = ops.convert_to_tensor(image, dtype=self.io)
        mask = ops.convert_to_tensor(mask, dtype=self.io)
        if self.layout == "nchw":
            image = ops.transpose(image, (0, 2, 3, 1))
        # Through float32: ONNX Runtime compares no uint8.
        hole = ops.cast(ops.cast(mask, "float32") > MASK_THRESHOLDS[self.io], "float32")
        hole = ops.expand_dims(hole, axis=-1)  # (B, H, W, 1)

        height, width = ops.shape(hole)[1:3]
        # Padded together: each gather is twenty nodes of the exported graph.
        known = mask_image(self._to_generator_range(image), hole)
        known = ops.concatenate([known, hole], axis=-1)  # (B, H, W, 4)
        known = _pad_by_reflection(known, self.generator.size_multiple)
        seen = known[..., :3], known[..., 3:]
        prediction = self.generator(list(seen), training=False)

        def finish(values: Tensor) -> Tensor:
            values = self._from_generator_range(values[:, :height, :width])
            values = composite(values, image, hole)
            return ops.transpose(values, (0, 3, 1, 2)) if self.layout == "nchw" else values

        if self.copying is None:
            return {"inpainted": finish(prediction)}
        filled, source = self.copying(prediction, *seen, seed=seed)
        return {
            "inpainted": finish(filled),
            "source": _mirror_back(source[:, :height, :width], height, width),
            "predicted": finish(prediction),
        }

    def _to_generator_range(self, image: Tensor) -> Tensor:
        if self.io == "uint8":
            return normalize(image)
        # Comparing, not clipping: NaN stays NaN in a clip, and one pixel would spoil the filling.
        image = ops.where(image > 0.0, ops.minimum(image, 1.0), 0.0)
        return image * 2.0 - 1.0

    def _from_generator_range(self, prediction: Tensor) -> Tensor:
        if self.io == "uint8":
            return to_uint8(prediction)
        return ops.clip(ops.cast(prediction, "float32") * 0.5 + 0.5, 0.0, 1.0)


def _mirror_back(source: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Places in the padding of `_pad_by_reflection` -> the pixels that were mirrored there."""
    return ops.stack(
        [
            ops.where(place < side, place, ops.maximum(2 * side - 2 - place, 0))
            for place, side in ((source[..., 0], height), (source[..., 1], width))
        ],
        axis=-1,
    )


def _pad_by_reflection(image: Tensor, multiple: int) -> Tensor:
    """Pads `(B, H, W, C)` at the bottom and on the right to multiples of `multiple`.

    By gathering rows and columns, not by a reflecting pad: that one refuses a padding as large as
    the image.
    """
    for axis in (1, 2):
        size = ops.shape(image)[axis]
        index = ops.arange((size + multiple - 1) // multiple * multiple)
        mirrored = ops.minimum(index, 2 * size - 2 - index)  # 0, 1, ..., size - 1, size - 2, ...
        image = ops.take(image, ops.maximum(mirrored, 0), axis=axis)
    return image
