"""Fills the white part of a mask with OpenCV alone: inpaint.py PREPARED_MODEL PHOTO MASK OUTPUT."""

import sys

import cv2

USAGE = "usage: inpaint.py PREPARED_MODEL PHOTO MASK OUTPUT"


def main() -> int:
    """Runs the command line; returns 0, 1 (it failed) or 2 (wrong use)."""
    if len(sys.argv) != 5:
        print(USAGE, file=sys.stderr)
        return 2
    model, photo, mask, output = sys.argv[1:]
    try:
        image = cv2.cvtColor(read(photo, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        inpainted = inpaint(model, image, read(mask, cv2.IMREAD_GRAYSCALE))
        if not cv2.imwrite(output, cv2.cvtColor(inpainted, cv2.COLOR_RGB2BGR)):
            raise ValueError(f"{output}: cannot be written")
    except (ValueError, cv2.error) as error:
        print(f"inpaint.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def inpaint(model: str, image: cv2.typing.MatLike, mask: cv2.typing.MatLike) -> cv2.typing.MatLike:
    """Returns `image` with the pixels filled where `mask` is above 127.

    Args:
        model: File that `prepare.py` has written.
        image: `(H, W, 3)` uint8 RGB; 16 pixels or more each way.
        mask: `(H, W)` uint8.

    Raises:
        ValueError: If OpenCV is older than 5, or the sizes differ.
    """
    if not hasattr(cv2.dnn, "ENGINE_NEW"):
        raise ValueError(f"OpenCV 5 or newer is needed, this is {cv2.__version__}")
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"the mask must be {image.shape[1]} x {image.shape[0]} like the photo, "
            f"is {mask.shape[1]} x {mask.shape[0]}"
        )
    # A Net of its own for every picture: in OpenCV 5.0.0 one that has seen a small hole computes a
    # later larger one wrongly.
    net = cv2.dnn.readNetFromONNX(model, cv2.dnn.ENGINE_NEW)
    net.setInput(image[None], "image")
    net.setInput(mask[None], "mask")
    return net.forward("inpainted")[0]


def read(path: str, flags: int) -> cv2.typing.MatLike:
    """Reads a picture.

    Raises:
        ValueError: If it cannot be read.
    """
    picture = cv2.imread(path, flags)
    if picture is None:
        raise ValueError(f"{path}: cannot be read as a picture")
    return picture


if __name__ == "__main__":
    sys.exit(main())
