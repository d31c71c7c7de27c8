"""What a dataset is, and how its files are found."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from musical_tf.files import open_regular
from musical_tf.images import find_images, masks_beside

SPLITS = ("train", "val", "test")

PAPER_RATIO = 350 / 256
"""Shorter side of a training photograph over the image size, in section 4.1 of the paper."""


@dataclass(frozen=True)
class Listing:
    """The files of one split, before any is read.

    Attributes:
        paths: Names to show and to report, one a photograph, in a stable order.
        open: Opens one of `paths` for reading.
        skipped: Files known to be unusable already, with the reason.
        note: What `describe()` should add about the split, or "".
    """

    paths: tuple[str, ...]
    open: Callable[[str], BinaryIO]
    skipped: dict[str, str]
    note: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset is, where it is looked for and how the paper pre-processes it (section 4.1).

    Attributes:
        name: The name on the command line.
        data_dir: Default folder, relative to the working directory; None without one.
        shorter_side_ratio: Shorter side of training photographs, in units of the image size.
        crop, flip: "center" or "random", and whether to flip left and right, in training.
        lambda_adversarial: Weight of the adversarial term in the MUSICAL paper.
        instructions: What to download, from where, and the layout expected.
        find: `find(data_dir, split) -> Listing`.
    """

    name: str
    data_dir: str | None
    shorter_side_ratio: float
    crop: str
    flip: bool
    lambda_adversarial: float
    instructions: str
    find: Callable[[Path, str], Listing]

    def shorter_side(self, image_size: int) -> int:
        """Returns the shorter side after resizing, in pixels: 256, or the paper's 350, for 256."""
        return round(self.shorter_side_ratio * image_size)

    def folder(self, data_dir: str | Path | None) -> str | Path | None:
        """Returns where the photographs are: as given, or the default; None for embedded ones.

        Raises:
            ValueError: If there is no default, or a folder is given for embedded photographs.
        """
        folder = data_dir or self.data_dir
        is_embedded = self.name == "demo"
        if is_embedded and folder is not None:
            raise ValueError(f"dataset demo is embedded and takes no data directory, got {folder}")
        if not is_embedded and folder is None:
            raise ValueError(f"dataset {self.name} needs --data-dir.\n{self.instructions}")
        return folder


def list_images(folder: str | Path) -> list[str]:
    """Lists the images below an existing folder, sorted; see `musical_tf.images.find_images`."""
    return sorted(map(str, find_images(folder, once=True)))


def list_photographs(folder: Path) -> list[str]:
    """The images below a folder, without the masks beside them."""
    paths = [Path(path) for path in list_images(folder)]
    masks = masks_beside(paths)
    return [str(path) for path in paths if path not in masks]


def listed(paths: Sequence[str], skipped: dict[str, str] | None = None, note: str = "") -> Listing:
    """Returns the listing of plain files."""
    return Listing(tuple(paths), open_regular, skipped or {}, note)


def first_folder(data_dir: Path, names: Sequence[str]) -> Path | None:
    """Returns the first of these subfolders that is there."""
    return next((data_dir / name for name in names if (data_dir / name).is_dir()), None)


def find_in_folders(data_dir: Path, split: str, candidates: dict[str, tuple[str, ...]]) -> Listing:
    """Lists the first folder of a split that is there; val falls back to the test photographs."""
    note = ""
    folder = first_folder(data_dir, candidates[split])
    if folder is None and split == "val":
        folder, note = first_folder(data_dir, candidates["test"]), "the test photographs"
    if folder is None:
        looked = " nor ".join(str(data_dir / name) for name in candidates[split])
        raise FileNotFoundError(f"no folder {looked}")
    return listed(list_images(folder), note=note)


def read_lines(file: Path) -> list[str]:
    """Reads a text file in UTF-8, or in UTF-16 where a byte order mark says so.

    Raises:
        ValueError: If it is no such text.
    """
    content = file.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be a folder or a text file in UTF-8: {error}") from error
    if "\0" in text:
        raise ValueError(f"{file} must be a folder or a text file in UTF-8, got zero bytes in it")
    return text.splitlines()
