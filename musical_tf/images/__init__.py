"""The one reader and writer of photographs and masks: NumPy and Pillow, no Keras."""

from musical_tf.image_formats import MAX_PIXELS, POLARITIES, READABLE, WRITABLE

from .listing import MASK_NAME, find_images, masks_beside
from .masks import (
    THRESHOLD,
    Mask,
    alpha_mask,
    check_sizes,
    dilate,
    fit_mask,
    load_mask,
    read_mask,
    stretch_hole,
    threshold_mask,
)
from .opening import ImageError, TooManyPixelsError
from .photographs import Photograph, encode_photograph, format_of, lost_in, read_photograph

__all__ = [
    "MASK_NAME",
    "MAX_PIXELS",
    "POLARITIES",
    "READABLE",
    "THRESHOLD",
    "WRITABLE",
    "ImageError",
    "Mask",
    "Photograph",
    "TooManyPixelsError",
    "alpha_mask",
    "check_sizes",
    "dilate",
    "encode_photograph",
    "find_images",
    "fit_mask",
    "format_of",
    "load_mask",
    "lost_in",
    "masks_beside",
    "read_mask",
    "read_photograph",
    "stretch_hole",
    "threshold_mask",
]
