"""A dozen photographs that arrive with two Python packages: no download."""

import importlib.util
import io
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from musical_tf.files import open_regular

from .listing import PAPER_RATIO, DatasetSpec, Listing
from .photographs import to_rgb

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")
_DEMO_PHOTOGRAPHS: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
    "train": {
        # motorcycle_right is the same scene a hand's breadth aside, so it stands in neither split.
        _SKIMAGE: (
            *("astronaut.png", "brick.png", "camera.png", "coins.png", "grass.png", "gravel.png"),
            *("hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg"),
        ),
        _SKLEARN: ("china.jpg", "flower.jpg"),
    },
    "test": {_SKIMAGE: ("chelsea.png", "coffee.png", "rocket.jpg")},
}


_COLOURINGS = ("gbr", "brg", "rbg", "bgr", "grb")
"""Orders of the channels that a photograph of the demo is trained on beside its own."""


def _find(data_dir: Path, split: str) -> Listing:
    del data_dir
    paths = []
    for (package, folder), names in _DEMO_PHOTOGRAPHS[
        "train" if split == "train" else "test"
    ].items():
        # The package is found, not imported: scikit-learn alone takes a second, and only its files
        # are wanted.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the Python package {package} is not installed")
        root = Path(spec.submodule_search_locations[0]) / folder
        paths += [str(root / name) for name in names]
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        raise FileNotFoundError(f"{absent[0]} is not there")
    if split == "train":
        # A dozen photographs, half of them grey, would teach that everything is reddish. With the
        # channels in every order no color is likelier than another: it has to come from around
        # the hole.
        paths += [
            f"{path}:{order}" for path in paths if not _is_grey(path) for order in _COLOURINGS
        ]
        note = "photographs in color once for every order of the channels"
    else:
        note = "the test photographs" if split == "val" else ""
    return Listing(tuple(paths), _open_demo, {}, note)


def _is_grey(path: str) -> bool:
    with Image.open(path) as image:
        return image.mode == "L"


def _open_demo(path: str) -> BinaryIO:
    """Opens a photograph of the demo, `PATH` as it is, `PATH:gbr` with its channels reordered."""
    file, _, order = path.rpartition(":")
    if order not in _COLOURINGS:
        return open_regular(path)
    with Image.open(file) as image:
        channels = dict(zip("rgb", to_rgb(image).split(), strict=True))
    reordered = io.BytesIO()
    Image.merge("RGB", [channels[channel] for channel in order]).save(reordered, format="BMP")
    reordered.seek(0)
    return reordered


DATASET = DatasetSpec(
    name="demo",
    data_dir=None,
    shorter_side_ratio=PAPER_RATIO,
    crop="random",
    flip=True,
    lambda_adversarial=0.0,
    instructions="""\
The demo's photographs arrive with two Python packages:
  pip install "scikit-image>=0.25" scikit-learn""",
    find=_find,
)
