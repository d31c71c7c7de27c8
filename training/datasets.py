"""Photographs to train and to test on: what section 4.1 of the paper uses, one's own, and an
embedded few.

Three steps, each a function: `open_dataset` finds the files of a split, `Photographs.load` turns
one file into pixels, `training_pipeline` makes the endless stream of batches. Everything random is
drawn from generators seeded with `(seed, sample number)`, so batch `s` can be made without making
the batches before it: that is what lets a resumed run see the photographs an uninterrupted one
would have seen.
"""

import codecs
import difflib
import hashlib
import importlib.util
import io
import logging
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageEnhance

from musical_tf.files import open_regular
from musical_tf.images import MAX_PIXELS, ImageError, find_images, masks_beside
from musical_tf.images.opening import decoded, turn_upright

if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
CACHE_BYTES = 2 * 1024**3
"""Default bound on the decoded photographs kept in memory: 2 GiB."""

MIN_SIDE = 16
"""Photographs with a shorter side below this many pixels are skipped, whatever the crop."""
MAX_ENLARGEMENT = 4
"""Photographs that would have to be enlarged more than this to fill the crop are skipped."""
MAX_ASPECT = 16
"""Photographs more elongated than this to one are skipped: they would fill the memory."""
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Filters that resize photographs, widened when reducing. The authors' code has the second."""
MAX_FILE_BYTES = 512 * 1024**2
"""Larger members of a zip file are skipped: a member is unpacked in memory."""

# Non-zero words that keep the generators of epochs, samples and holes apart: numpy pads short seeds
# with zeros, so (seed, 3) and (seed, 3, 0) would be one generator.
_EPOCH_STREAM = 0x65706F63

_PAPER_RATIO = 350 / 256


class HoleSource(Protocol):
    """What the pipelines need of `training.masks.open_masks`."""

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a random hole, `(H, W)` bool, True = missing."""

    def deterministic(self, index: int) -> np.ndarray:
        """Returns the hole of evaluation sample `index`, `(H, W)` bool, True = missing."""


class UnusableImageError(ImageError):
    """A file that cannot be used as a photograph; the message says why, without the path."""


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
        data_dir: Default folder, relative to the working directory; None if one must be named, or
            none is needed.
        shorter_side_ratio: Shorter side of training photographs after resizing, in units of the
            image size. Test photographs have the image size, as in the authors' test code.
        crop: "center" or "random", in training. Test crops are always centred.
        flip: Whether training flips left and right at random.
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


# ------------------------------------------------------------------------------------------ reading


def _on_white(image: Image.Image) -> Image.Image:
    """Flattens transparency on white, as browsers do: what lies under alpha 0 is often garbage."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any Pillow image to 8-bit RGB.

    Grey is repeated, palettes are looked up, transparency is flattened on white, 16-bit samples are
    scaled (65535 becomes 255, rather than clipped at 255 as Pillow's own conversion does), CMYK is
    converted without a colour profile, of an animation the first frame is taken.

    Args:
        image: A Pillow image of any mode.

    Returns:
        The image in mode "RGB", the same size.

    Raises:
        UnusableImageError: If the range of its samples is not known (float, or 32-bit beyond 16-bit
            values).
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise UnusableImageError("32-bit samples outside 0..65535: their range is not known")
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnusableImageError("floating-point samples: their range is not known")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def decode(
    file: BinaryIO,
    shorter_side: int,
    min_side: int = MIN_SIDE,
    resampling: str = "bilinear",
) -> np.ndarray:
    """Reads a photograph, upright, and resizes its shorter side.

    Args:
        file: An image file, opened in binary mode.
        shorter_side: Pixels of the shorter side of the result. The aspect ratio is kept.
        min_side: A shorter side below this many pixels is refused.
        resampling: A key of `RESAMPLING`.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        UnusableImageError: If the file is no image, cut off, too small, too long or too large.
    """

    def prepare(image: Image.Image, name: str) -> None:
        del name
        if min(image.size) < min_side:
            raise UnusableImageError(
                f"tiny: {image.width} x {image.height}, expected a shorter side of at least "
                f"{min_side}"
            )
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise UnusableImageError(
                f"{image.width} x {image.height} is longer than {MAX_ASPECT} to 1"
            )
        # JPEG only: lets libjpeg decode a large photograph at 1/2, 1/4 or 1/8, still at least
        # twice too large.
        image.draft(image.mode, (2 * shorter_side, 2 * shorter_side))

    try:
        with decoded(file, "photograph", MAX_PIXELS, prepare) as image:
            turn_upright(image)
            rgb = to_rgb(image)
    except UnusableImageError:
        raise
    except ImageError as error:
        reason = str(error).removeprefix("photograph: ")
        raise UnusableImageError(f"cannot be read: {reason}") from error
    # `to_rgb` raises whatever a damaged palette leads Pillow to; none of it may end a training run.
    except Exception as error:
        raise UnusableImageError(f"cannot be read: {error or type(error).__name__}") from error
    scale = shorter_side / min(rgb.size)
    size = tuple(max(shorter_side, round(side * scale)) for side in rgb.size)
    if size != rgb.size:
        rgb = rgb.resize(size, RESAMPLING[resampling])
    return np.asarray(rgb)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the central `(size, size, 3)` of a `(height, width, 3)` at least that large."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


# -------------------------------------------------------------------------------------- photographs


class Photographs:
    """The photographs of one split of a dataset, decoded on demand.

    Args:
        name, split: The dataset's name and the split, for messages.
        listing: Where the files are.
        image_size: Pixels of a square crop.
        shorter_side: Pixels of the shorter side after resizing, at least `image_size`.
        crop: "center" or "random", in training.
        flip: Whether training flips at random.
        cache_bytes: Bound on the decoded photographs kept in memory; 0 keeps none.
        resampling: A key of `RESAMPLING`.

    Attributes:
        paths: One path a photograph. A member of a zip file reads `archive.zip/member`.
        skipped: Path -> reason, of every file found unusable so far. Files are only looked at when
            needed.

    Thread-safe: the pipeline's workers share one instance.
    """

    def __init__(
        self,
        name: str,
        split: str,
        listing: Listing,
        image_size: int,
        shorter_side: int,
        crop: str = "center",
        flip: bool = True,
        cache_bytes: int = CACHE_BYTES,
        resampling: str = "bilinear",
    ):
        if crop not in ("center", "random"):
            raise ValueError(f'crop must be "center" or "random", got {crop!r}')
        if shorter_side < image_size:
            raise ValueError(
                f"shorter_side must be at least image_size ({image_size}), got {shorter_side}"
            )
        self.name = name
        self.split = split
        self.paths = list(listing.paths)
        self.skipped = dict(listing.skipped)
        self.image_size = image_size
        self.shorter_side = shorter_side
        self.crop = crop
        self.flip = flip
        self.cache_bytes = cache_bytes
        self.resampling = resampling
        self.note = listing.note
        self._open = listing.open
        self._min_side = max(MIN_SIDE, image_size // MAX_ENLARGEMENT)
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0
        self._unusable: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> np.ndarray:
        """Returns a photograph's pixels.

        Args:
            index: Position in `paths`.

        Returns:
            `(height, width, 3)` uint8 RGB, read-only, upright. The shorter side is `shorter_side`;
            where the dataset crops at the centre, the crop is taken here:
            `(image_size, image_size, 3)`.

        Raises:
            UnusableImageError: If the file cannot be used; the message names it and the reason, and
            so does `skipped`.
        """
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        path = self.paths[index]
        if index in self._unusable:
            raise UnusableImageError(f"{path}: {self.skipped[path]}")
        try:
            with self._open(path) as file:
                image = decode(file, self.shorter_side, self._min_side, self.resampling)
        except (OSError, UnusableImageError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._skip(index, reason)
            raise UnusableImageError(f"{path}: {reason}") from error
        if self.crop == "center":
            image = center_crop(image, self.image_size)
        image = np.ascontiguousarray(image)
        image.setflags(write=False)
        with self._lock:
            if index not in self._cache and self._cached_bytes + image.nbytes <= self.cache_bytes:
                self._cache[index] = image
                self._cached_bytes += image.nbytes
        return image

    def _skip(self, index: int, reason: str) -> None:
        with self._lock:
            if index in self._unusable:
                return
            self.skipped[self.paths[index]] = reason
            self._unusable.add(index)
            count = len(self._unusable)
        if count <= 10:
            logger.warning("skipped %s: %s", self.paths[index], reason)
        elif count == 11:
            logger.warning("skipped more than 10 photographs of %s; no more are named", self.name)

    def load_usable(self, order: Sequence[int], position: int) -> tuple[int, np.ndarray]:
        """Loads `order[position]`, or the next usable photograph after it in `order`, going round.

        Which one that is depends on the files alone, not on the timing of the workers.

        Args:
            order: A permutation of the indices.
            position: Where in `order` to start.

        Returns:
            The index and the pixels, as `load` returns them.

        Raises:
            ValueError: If not a single photograph can be used; names the first few and their
            reasons.
        """
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            try:
                return index, self.load(index)
            except UnusableImageError:
                continue
        raise ValueError(
            f"{self.name}: none of the {len(self)} photographs of the {self.split} split "
            f"can be used: {_first_few(self.skipped)}"
        )

    def describe(self) -> str:
        """Returns a line for logs: how many photographs, how they are cut, what was skipped."""
        parts = [
            f"{self.name} {self.split}: {len(self):,} photographs",
            f"shorter side {self.shorter_side}, {self.crop} crop {self.image_size}",
        ]
        if self.note:
            parts.append(self.note)
        parts.append(
            f"{len(self.skipped):,} skipped ({_first_few(self.skipped)})"
            if self.skipped
            else "0 skipped"
        )
        return ", ".join(parts)


def _first_few(skipped: dict[str, str], count: int = 3) -> str:
    shown = [f"{path}: {reason}" for path, reason in list(skipped.items())[:count]]
    rest = len(skipped) - len(shown)
    return "; ".join(shown) + (f"; and {rest:,} more" if rest else "")


# ------------------------------------------------------------------------------------ finding files


def list_images(folder: str | Path) -> list[str]:
    """Lists the images below a folder, by suffix, sorted; hidden files are left out, links are
    followed once.

    Args:
        folder: An existing folder.

    Returns:
        Paths, each beginning with `folder`.
    """
    return sorted(map(str, find_images(folder, once=True)))


def _list_photographs(folder: Path) -> list[str]:
    """The images below a folder, without the masks beside them."""
    paths = [Path(path) for path in list_images(folder)]
    masks = masks_beside(paths)
    return [str(path) for path in paths if path not in masks]


def _files(paths: Sequence[str], skipped: dict[str, str] | None = None, note: str = "") -> Listing:
    return Listing(tuple(paths), open_regular, skipped or {}, note)


def _hash(path: str, folder: Path) -> str:
    """The hash of a path relative to a folder, the same on every machine and system."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # Windows: on another drive
        relative = path
    return hashlib.sha256(Path(relative).as_posix().encode(errors="surrogateescape")).hexdigest()


def _split_by_path(paths: Sequence[str], split: str, folder: Path) -> list[str]:
    """Assigns files to splits by the hash of their paths: about 90 % train, 5 % val, 5 % test.

    The path relative to `folder` alone decides, so adding or removing other files, or moving the
    whole folder, changes no file's split. Only a split that would stay empty (a handful of files)
    gets the file with the highest hash of the largest split.
    """
    dealt: dict[str, list[str]] = {name: [] for name in SPLITS}
    for path in paths:
        share = int(_hash(path, folder)[:8], 16) / 2**32
        dealt["test" if share < 0.05 else "val" if share < 0.1 else "train"].append(path)
    for name in ("test", "val", "train"):
        if not dealt[name]:
            donor = max(SPLITS, key=lambda split: len(dealt[split]))
            if len(dealt[donor]) < 2:
                continue
            moved = max(dealt[donor], key=lambda path: (_hash(path, folder), path))
            dealt[donor].remove(moved)
            dealt[name].append(moved)
    if not dealt[split]:
        raise ValueError(
            f"{folder} holds {len(paths)} images: too few to keep any apart as the {split} split"
        )
    return dealt[split]


def _find_celeba(data_dir: Path, split: str) -> Listing:
    partition_file = next(
        (
            data_dir / name
            for name in (
                "list_eval_partition.txt",
                "Eval/list_eval_partition.txt",
                "list_eval_partition.csv",
            )
            if (data_dir / name).is_file()
        ),
        None,
    )
    if partition_file is None:
        raise FileNotFoundError(f"{data_dir / 'list_eval_partition.txt'} is not there")
    # Section 4.1: "We use both of the training set and validation set for training".
    wanted = {"train": (0, 1), "val": (1,), "test": (2,)}[split]
    names = [name for name, partition in _read_partitions(partition_file) if partition in wanted]

    folder, archive = data_dir / "img_align_celeba", data_dir / "img_align_celeba.zip"
    if folder.is_dir():
        if (folder / "img_align_celeba").is_dir():
            folder = folder / "img_align_celeba"
        root, there, opener = folder, set(os.listdir(folder)), open_regular
    elif archive.is_file():
        root, there, opener = _open_archive(archive)
    else:
        raise FileNotFoundError(f"neither {folder} nor {archive} is there")
    absent = {
        os.path.join(root, name): f"listed in {partition_file.name}, but not there"
        for name in names
        if name not in there
    }
    paths = [os.path.join(root, name) for name in names if name in there]
    return Listing(tuple(paths), opener, absent)


def _open_archive(archive: Path) -> tuple[Path, set[str], Callable[[str], BinaryIO]]:
    """Opens a zip of images: the prefix of its members' paths, their names, how to open one."""
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is not a whole zip file: {error}") from error
    members = {Path(each.filename).name: each for each in opened.infolist() if not each.is_dir()}

    def open_member(path: str) -> BinaryIO:
        member = members[Path(path).name]
        # Whole into memory: Pillow seeks, and seeking back in a compressed member starts over.
        try:
            with opened.open(member) as stream:
                # The directory may state a smaller size than the member unpacks to.
                content = stream.read(min(member.file_size, MAX_FILE_BYTES) + 1)
        # zipfile raises BadZipFile, zlib.error, RuntimeError, EOFError, ... on a damaged member.
        except Exception as error:
            raise UnusableImageError(f"cannot be unpacked: {error}") from error
        if len(content) > MAX_FILE_BYTES:
            raise UnusableImageError(
                f"a zip member must have at most {MAX_FILE_BYTES:,} bytes, got "
                f"{max(member.file_size, len(content)):,}"
            )
        return io.BytesIO(content)

    return archive, set(members), open_member


def _read_partitions(file: Path) -> list[tuple[str, int]]:
    partitions = []
    for number, line in enumerate(read_lines(file), start=1):
        fields = line.replace(",", " ").split()
        if not fields or (number == 1 and fields[-1] == "partition"):
            continue
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise ValueError(
                f"{file}, line {number}: expected an image name and 0, 1 or 2, got {line!r}"
            )
        partitions.append((fields[0], int(fields[1])))
    return partitions


def _first_folder(data_dir: Path, names: Sequence[str]) -> Path | None:
    return next((data_dir / name for name in names if (data_dir / name).is_dir()), None)


_PARIS_FOLDERS = {
    "train": ("train", "paris_train_original"),
    "val": ("val",),
    "test": ("test", "paris_eval_gt", "paris_eval/paris_eval_gt"),
}


def _find_paris(data_dir: Path, split: str) -> Listing:
    return _find_in_folders(data_dir, split, _PARIS_FOLDERS)


def _find_in_folders(data_dir: Path, split: str, candidates: dict[str, tuple[str, ...]]) -> Listing:
    note = ""
    folder = _first_folder(data_dir, candidates[split])
    if folder is None and split == "val":
        folder, note = _first_folder(data_dir, candidates["test"]), "the test photographs"
    if folder is None:
        looked = " nor ".join(str(data_dir / name) for name in candidates[split])
        raise FileNotFoundError(f"no folder {looked}")
    return _files(list_images(folder), note=note)


def _find_canyon(data_dir: Path, split: str) -> Listing:
    folders = {
        "train": (
            "train/canyon",
            "data_256/c/canyon",
            "data_256/canyon",
            "data_large/c/canyon",
            "data_large/canyon",
            "canyon",
            "train",
        ),
        "val": ("val/canyon",),
        "test": ("val/canyon", "test/canyon", "test", "val"),
    }
    listed = _first_folder(data_dir, ("val_256", "val_large"))
    if split != "train" and listed is not None:
        return _canyon_of_val_list(data_dir, listed)
    # The paper tests on Places' validation images, so that "val" and "test" are the same
    # photographs here.
    return _find_in_folders(data_dir, split, folders)


def _canyon_of_val_list(data_dir: Path, folder: Path) -> Listing:
    """Picks the canyons out of Places365's flat validation folder, by its two lists."""
    lists = {}
    for name in ("categories_places365.txt", "places365_val.txt"):
        places = [data_dir / name, data_dir / "filelist_places365-standard" / name]
        lists[name] = next((place for place in places if place.is_file()), None)
        if lists[name] is None:
            raise FileNotFoundError(f"{folder} is there, but its list {places[0]} is not")
    categories = _read_pairs(lists["categories_places365.txt"])
    number = next((number for name, number in categories if name.strip("/") == "c/canyon"), None)
    if number is None:
        raise ValueError(f"{lists['categories_places365.txt']} has no category /c/canyon")
    paths = [
        str(folder / name)
        for name, category in _read_pairs(lists["places365_val.txt"])
        if category == number
    ]
    absent = {path: "listed in places365_val.txt, but not there" for path in paths}
    there = [path for path in paths if os.path.isfile(path)]
    return _files(there, {path: absent[path] for path in paths if path not in set(there)})


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(read_lines(file), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(f"{file}, line {number}: expected a name and a number, got {line!r}")
        pairs.append((fields[0], fields[1]))
    return pairs


def _find_folder(data_dir: Path, split: str) -> Listing:
    if data_dir.is_file():
        return _find_in_list(data_dir, split)
    subfolders = {name for name in SPLITS if (data_dir / name).is_dir()}
    if not subfolders or subfolders == {"train"}:
        folder = data_dir / "train" if subfolders else data_dir
        paths = _list_photographs(folder)
        return _files(_split_by_path(paths, split, folder) if paths else [])
    note = ""
    folder = data_dir / split
    if split not in subfolders:
        stand_in = {"val": "test", "test": "val"}.get(split)
        if stand_in not in subfolders:
            raise FileNotFoundError(
                f"{folder} is not there, though {data_dir} has {', '.join(sorted(subfolders))}"
            )
        folder, note = data_dir / stand_in, f"the {stand_in} photographs"
    return _files(_list_photographs(folder), note=note)


def _find_in_list(file: Path, split: str) -> Listing:
    lines = [line.strip() for line in read_lines(file)]
    names = [line for line in lines if line and not line.startswith("#")]
    paths = [_listed_path(file.parent, name) for name in names]
    return _files(_split_by_path(paths, split, file.parent) if paths else [])


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


def _listed_path(folder: Path, name: str) -> str:
    """The path of a list's line; backslashes separate folders where no file has them in its name.

    Only relative paths with backslashes are converted: a drive letter means nothing elsewhere.
    """
    path = folder / name
    if "\\" in name and os.sep == "/" and not path.exists():
        path = folder / PureWindowsPath(name).as_posix()
    return os.path.normpath(path)


_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")
_DEMO_PHOTOGRAPHS = {
    "train": {
        # motorcycle_right is the same scene a hand's breadth aside, so it stands in neither split.
        _SKIMAGE: (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "retina.jpg",
        ),
        _SKLEARN: ("china.jpg", "flower.jpg"),
    },
    "test": {_SKIMAGE: ("chelsea.png", "coffee.png", "rocket.jpg")},
}


_COLOURINGS = ("gbr", "brg", "rbg", "bgr", "grb")
"""Orders of the channels that a photograph of the demo is trained on beside its own."""


def _find_demo(data_dir: Path, split: str) -> Listing:
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
        # channels in every order no colour is likelier than another: it has to come from around
        # the hole.
        paths += [
            f"{path}:{order}" for path in paths if not _is_grey(path) for order in _COLOURINGS
        ]
        note = "photographs in colour once for every order of the channels"
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


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="celeba",
            data_dir="data/celeba",
            shorter_side_ratio=1.0,
            crop="center",
            flip=True,
            lambda_adversarial=0.0,
            instructions="""\
Download img_align_celeba.zip ("Align&Cropped Images") and list_eval_partition.txt
("Train/Val/Test Partitions") from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.
Expected layout, the zip unpacked or not:
  DIR/list_eval_partition.txt
  DIR/img_align_celeba/000001.jpg ...   or   DIR/img_align_celeba.zip""",
            find=_find_celeba,
        ),
        DatasetSpec(
            name="paris_streetview",
            data_dir="data/paris_streetview",
            shorter_side_ratio=_PAPER_RATIO,
            crop="random",
            flip=True,
            lambda_adversarial=0.3,
            instructions="""\
Paris StreetView is not public: ask the authors of Context Encoders for it,
https://github.com/pathak22/context-encoder.
Expected layout (14,900 photographs to train, 100 to test):
  DIR/train/*.png   or   DIR/paris_train_original/*.JPG
  DIR/test/*.png    or   DIR/paris_eval_gt/*.png   or   DIR/paris_eval/paris_eval_gt/*.png""",
            find=_find_paris,
        ),
        DatasetSpec(
            name="places_canyon",
            data_dir="data/places_canyon",
            shorter_side_ratio=_PAPER_RATIO,
            crop="random",
            flip=True,
            lambda_adversarial=0.3,
            instructions="""\
Download Places365-Standard (small images) from http://places2.csail.mit.edu/download.html.
Expected layout, one of:
  places365standard_easyformat.tar:  DIR/train/canyon/*.jpg  and  DIR/val/canyon/*.jpg
  train_256_places365standard.tar, val_256.tar, filelist_places365-standard.tar:
      DIR/data_256/c/canyon/*.jpg, DIR/val_256/*.jpg, DIR/places365_val.txt,
      DIR/categories_places365.txt
  one's own choice:  DIR/canyon/*.jpg (or DIR/train)  and  DIR/val/*.jpg (or DIR/test)""",
            find=_find_canyon,
        ),
        DatasetSpec(
            name="folder",
            data_dir=None,
            shorter_side_ratio=_PAPER_RATIO,
            crop="random",
            flip=True,
            lambda_adversarial=0.3,
            instructions="""\
--data-dir names a folder of images, at any depth, or a text file with one image path a line.
Subfolders train, val and test are the splits if they are there; otherwise the hash of each file's
path below DIR decides (90 %, 5 %, 5 %).""",
            find=_find_folder,
        ),
        DatasetSpec(
            name="demo",
            data_dir=None,
            shorter_side_ratio=_PAPER_RATIO,
            crop="random",
            flip=True,
            lambda_adversarial=0.0,
            instructions="""\
The demo's photographs arrive with two Python packages:
  pip install "scikit-image>=0.25" scikit-learn""",
            find=_find_demo,
        ),
    )
}


def get_spec(name: str) -> DatasetSpec:
    """Returns a dataset's description.

    Args:
        name: A key of `DATASETS`.

    Raises:
        ValueError: On an unknown name; lists the valid ones.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}{hint}")


def open_dataset(
    name: str,
    data_dir: str | Path | None,
    split: str,
    image_size: int,
    *,
    shorter_side: int | None = None,
    crop: str | None = None,
    flip: bool | None = None,
    cache_bytes: int = CACHE_BYTES,
    resampling: str | None = None,
) -> Photographs:
    """Finds the photographs of one split; reads none of them yet.

    Splits are "train", "val" and "test". CelebA's train is its partitions 0 and 1, as in the paper,
    and its val is partition 1, so val measures nothing new there. Paris StreetView, Places' canyon
    and the demo have no validation set of their own: their val is the test photographs, and
    `describe()` says so.

    Args:
        name: A key of `DATASETS`.
        data_dir: The dataset's folder (for "folder" also a text file of paths); None for the
            dataset's default.
        split: One of `SPLITS`.
        image_size: Pixels of a square crop.
        shorter_side, crop, flip: Replace the dataset's own pre-processing. By default the shorter
            side of val and test photographs is `image_size`.
        cache_bytes: Bound on the decoded photographs kept in memory.
        resampling: A key of `RESAMPLING`; by default bilinear for train, and bicubic, the authors'
            filter, for val and test.

    Raises:
        ValueError: On an unknown name or split, or a list that makes no sense.
        FileNotFoundError: If the dataset or the split is not there. Says where it was looked for,
            what to download and the layout expected.
    """
    spec = get_spec(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if name == "demo" and data_dir is not None:
        raise ValueError(
            f"dataset demo is embedded and takes no data directory, got {data_dir}; "
            "for a folder of images use dataset folder"
        )
    if shorter_side is None:
        shorter_side = spec.shorter_side(image_size) if split == "train" else image_size
    where = data_dir if data_dir is not None else spec.data_dir
    if where is None and name != "demo":
        raise FileNotFoundError(f"dataset {name} needs a data directory.\n{spec.instructions}")
    where = Path(where or ".")
    looked = os.path.abspath(where)
    try:
        if not where.exists():
            raise FileNotFoundError(f"{looked} is not there")
        listing = spec.find(where, split)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"dataset {name}, split {split}, not found: {error} (looked in {looked}).\n"
            f"{spec.instructions}"
        ) from error
    if not listing.paths:
        absent = f": {_first_few(listing.skipped)}" if listing.skipped else ""
        raise FileNotFoundError(
            f"dataset {name}, split {split}: no images in {looked}{absent}.\n{spec.instructions}"
        )
    return Photographs(
        name,
        split,
        listing,
        image_size,
        shorter_side,
        spec.crop if crop is None else crop,
        spec.flip if flip is None else flip,
        cache_bytes,
        resampling or ("bilinear" if split == "train" else "bicubic"),
    )


# ---------------------------------------------------------------------------------------- pipelines


class SampleStream:
    """The endless stream of training samples: `sample(n)` is a pure function of the seed and `n`.

    Sample `n` belongs to epoch `n // len(photographs)`; each epoch is a permutation drawn from
    (seed, epoch). An unusable photograph is replaced by the next usable one of the epoch's
    permutation. Crop, flip, zoom, colours and hole are drawn, in that order, from a generator
    seeded with `(seed, n)`.

    Args:
        photographs: What to draw from.
        holes: Where holes come from.
        image_size: Pixels of the square crop.
        seed: Int >= 0.
        crop: "center" or "random".
        flip: Whether to flip left and right, one time in two.
        zoom: How much of itself a crop is enlarged by at most, at a random place; 0 = off.
        jitter: How much brightness, contrast and saturation change at most, as a share; 0 = off.
    """

    def __init__(
        self,
        photographs: Photographs,
        holes: HoleSource,
        image_size: int,
        seed: int,
        crop: str,
        flip: bool,
        zoom: float = 0.0,
        jitter: float = 0.0,
    ):
        self.photographs = photographs
        self.holes = holes
        self.image_size = image_size
        self.seed = seed
        self.crop = crop
        self.flip = flip
        self.zoom = zoom
        self.jitter = jitter
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def order(self, epoch: int) -> np.ndarray:
        """Returns the epoch's permutation of the photographs' indices, int64."""
        with self._lock:
            if epoch not in self._orders:
                rng = np.random.default_rng((self.seed, epoch, _EPOCH_STREAM))
                # Workers straddle at most one epoch boundary, or a few when the dataset is smaller
                # than the prefetch.
                while len(self._orders) >= 8:
                    del self._orders[min(self._orders)]
                self._orders[epoch] = rng.permutation(len(self.photographs))
            return self._orders[epoch]

    def sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes sample `number`.

        Returns:
            Image `(image_size, image_size, 3)` uint8 RGB and hole `(image_size, image_size)` bool,
            True = missing.
        """
        number = int(number)
        epoch, position = divmod(number, len(self.photographs))
        _, image = self.photographs.load_usable(self.order(epoch), position)
        rng = np.random.default_rng((self.seed, number))
        if self.crop == "random":
            top = rng.integers(image.shape[0] - self.image_size + 1)
            left = rng.integers(image.shape[1] - self.image_size + 1)
            image = image[top : top + self.image_size, left : left + self.image_size]
        else:
            image = center_crop(image, self.image_size)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.zoom:
            image = _zoomed(image, self.zoom, rng)
        if self.jitter:
            image = _recoloured(image, self.jitter, rng)
        return np.ascontiguousarray(image), self.holes.hole(rng)


def _zoomed(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    side = size / (1 + rng.uniform(0, most))
    left, top = rng.uniform(0, size - side, size=2)
    enlarged = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(enlarged)


def _recoloured(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(image)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, factor in zip(kinds, rng.uniform(1 - most, 1 + most, size=3), strict=True):
        picture = kind(picture).enhance(factor)
    return np.asarray(picture)


def training_pipeline(
    photographs: Photographs,
    holes: HoleSource,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    crop: str | None = None,
    flip: bool | None = None,
    workers: int | None = None,
    part: tuple[int, int] | None = None,
    zoom: float = 0.0,
    jitter: float = 0.0,
) -> "tf.data.Dataset":
    """Makes the endless stream of training batches.

    Batch `s` is a pure function of (seed, s): to resume after `s` batches, make the pipeline with
    `start_step=s`. Epochs follow each other without a gap, so that a batch may hold the end of one
    and the beginning of the next; see `steps_for_epochs`.

    Args:
        photographs: What to draw from.
        holes: Where holes come from, of the same image size.
        image_size: Pixels of the square crop.
        batch_size: Photographs a batch.
        seed: Int >= 0.
        start_step: Number of the first batch.
        crop, flip: Replace the photographs' own.
        workers: Photographs decoded at the same time; None for the number of CPU cores, at most 16.
        part: The first sample of each batch to make, and how many, where other processes make the
            others; None for the whole batch.
        zoom, jitter: See `SampleStream`.

    Returns:
        A dataset of `{"image": (B, H, W, 3) float32 in [-1, 1], "hole": (B, H, W, 1) float32, 1 =
        missing}`.

    Raises:
        ValueError: If no photograph can be used; names the first few.
    """
    # Here, not above: the first import takes seconds, which listing files and evaluating an ONNX
    # file need not pay.
    import tensorflow as tf

    from musical_tf import conventions

    if image_size > photographs.shorter_side:
        raise ValueError(
            f"photographs were opened with a shorter side of {photographs.shorter_side}, "
            f"too small for crops of {image_size}"
        )
    if crop == "random" and photographs.crop == "center":
        raise ValueError("photographs opened with crop='center' cannot be cropped at random")
    stream = SampleStream(
        photographs,
        holes,
        image_size,
        seed,
        photographs.crop if crop is None else crop,
        photographs.flip if flip is None else flip,
        zoom,
        jitter,
    )
    first, count = part or (0, batch_size)
    if not 0 <= first <= first + count <= batch_size or count < 1:
        raise ValueError(f"part must lie within a batch of {batch_size}, got {part}")
    # Fails here, with a ValueError, rather than in a worker thread whose errors TensorFlow wraps.
    stream.sample(start_step * batch_size + first)
    workers = workers or min(16, os.cpu_count() or 1)

    def make(number: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        # Pillow lets go of the interpreter lock while it decodes and resizes, so Python workers do
        # run side by side.
        image, hole = tf.numpy_function(
            stream.sample, [number], [tf.uint8, tf.bool], stateful=False
        )
        image.set_shape((image_size, image_size, 3))
        hole.set_shape((image_size, image_size))
        return image, hole

    def finish(image: "tf.Tensor", hole: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return {
            "image": conventions.normalize(image),
            "hole": tf.cast(hole, tf.float32)[..., tf.newaxis],
        }

    numbers = tf.data.Dataset.range(start_step * count, 2**62)
    if count < batch_size:
        numbers = numbers.map(lambda n: n // count * batch_size + first + n % count)
    samples = numbers.map(make, num_parallel_calls=workers, deterministic=True)
    batches = samples.batch(count, drop_remainder=True).map(finish).prefetch(4)
    options = tf.data.Options()
    # Its own threads: with TensorFlow's inter-op pool set to one, decoding would wait for the
    # training step.
    options.threading.private_threadpool_size = workers + 2
    options.deterministic = True
    return batches.with_options(options)


def steps_for_epochs(epochs: float, photographs: int, batch_size: int) -> int:
    """Returns the number of batches after which every photograph was drawn `epochs` times, rounded
    up.

    Args:
        epochs: Number of epochs > 0.
        photographs: Photographs of the training split, `len(photographs)`.
        batch_size: Photographs a batch.
    """
    return max(1, -int(-epochs * photographs // batch_size))


def evaluation_samples(
    photographs: Photographs, holes: HoleSource, image_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields every usable photograph of a split once, cropped at the centre, in the order of
    `photographs.paths`.

    Nothing is random: hole `i` belongs to path `i`, whether or not others were skipped.

    Args:
        photographs: The split to evaluate.
        holes: Where holes come from, of the same image size.
        image_size: Pixels of the square crop.

    Yields:
        Path, image `(image_size, image_size, 3)` uint8 RGB, hole `(image_size, image_size)` bool,
        True = missing.

    Raises:
        ValueError: If no photograph can be used; names the first few.
    """
    indices = range(len(photographs))
    first, _ = photographs.load_usable(indices, 0)
    for index in indices[first:]:
        try:
            image = photographs.load(index)
        except UnusableImageError:
            continue
        yield photographs.paths[index], center_crop(image, image_size), holes.deterministic(index)
