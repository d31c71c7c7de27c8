"""Fills the white part of a mask on a Triton or KServe server, over the v2 protocol.

    python client.py localhost:8000 photo.png mask.png output.png

Sends the whole picture. With --working-size it sends windows of that size around the holes, as
musical-inpaint does: for photographs larger than the training size.
"""

import argparse
import importlib
import sys
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def main() -> int:
    """Runs the command line; returns 0, 1 (it failed) or 2 (wrong use)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("server", help="host:port of the HTTP endpoint")
    parser.add_argument("photo", help="picture to fill")
    parser.add_argument("mask", help="picture of the same size, white where to fill")
    parser.add_argument("output", help="file to write")
    parser.add_argument(
        "--model", default="musical_inpaint", help="its name (default: %(default)s)"
    )
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PIXELS",
        help="send windows of this size, the model's training size for instance",
    )
    arguments = parser.parse_args()
    try:
        image = np.asarray(ImageOps.exif_transpose(Image.open(arguments.photo)).convert("RGB"))
        mask = np.asarray(Image.open(arguments.mask).convert("L"))
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{arguments.mask}: the mask must be {image.shape[1]} x {image.shape[0]} like the "
                f"photo, is {mask.shape[1]} x {mask.shape[0]}"
            )
        with InferenceServerClient(arguments.server, network_timeout=60) as client:
            if arguments.working_size is None:
                inpainted = request(client, arguments.model, image, mask)
            else:
                inpainted = request_windows(
                    client, arguments.model, image, mask > 127, arguments.working_size
                )
        Image.fromarray(inpainted).save(arguments.output)
    except (OSError, ValueError, InferenceServerException) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


def request(
    client: InferenceServerClient, model: str, image: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """One request to the server.

    Args:
        client: Connected to the server.
        model: Name of the model there.
        image: `(H, W, 3)` uint8 RGB, 16 pixels or more each way.
        mask: `(H, W)` uint8, above 127 = fill this.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        InferenceServerException: If the server refuses it.
    """
    inputs = []
    for name, array in (("image", image[None]), ("mask", mask[None])):
        inputs.append(InferInput(name, array.shape, "UINT8"))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(array))
    outputs = [InferRequestedOutput("inpainted")]
    return client.infer(model, inputs, outputs=outputs).as_numpy("inpainted")[0]


def request_windows(
    client: InferenceServerClient,
    model: str,
    image: np.ndarray,
    hole: np.ndarray,
    working_size: int,
) -> np.ndarray:
    """Fills a photograph of any size, one request for each window around its holes.

    Args:
        client, model, image: As in `request`.
        hole: `(H, W)` bool, True = fill this.
        working_size: Side in pixels of the largest window that is sent.

    Returns:
        `(H, W, 3)` uint8 RGB.
    """
    fill = load_tiling().fill

    def run(windows: np.ndarray, holes: np.ndarray) -> list[np.ndarray]:
        masks = holes.astype(np.uint8) * np.uint8(255)
        return [request(client, model, *pair) for pair in zip(windows, masks, strict=True)]

    return fill(image, hole, run, working_size)


def load_tiling() -> ModuleType:
    """The module that places the windows, installed or in the checkout this runs from."""
    for name in ("musical_tf.serving.tiling", "serving.tiling"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ValueError(
        "--working-size needs musical-tf: pip install 'musical-tf[serve]', or PYTHONPATH=. in the "
        "folder of a checkout"
    )


if __name__ == "__main__":
    sys.exit(main())
