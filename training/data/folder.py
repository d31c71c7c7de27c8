"""Any folder of images, or a text file that lists images."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from .listing import (
    PAPER_RATIO,
    SPLITS,
    DatasetSpec,
    Listing,
    list_photographs,
    listed,
    read_lines,
)


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
        raise ValueError(f"{folder} holds {len(paths)} images, too few for a {split} split")
    return dealt[split]


def _find(data_dir: Path, split: str) -> Listing:
    if data_dir.is_file():
        return _find_in_list(data_dir, split)
    subfolders = {name for name in SPLITS if (data_dir / name).is_dir()}
    if not subfolders or subfolders == {"train"}:
        folder = data_dir / "train" if subfolders else data_dir
        paths = list_photographs(folder)
        return listed(_split_by_path(paths, split, folder) if paths else [])
    note = ""
    folder = data_dir / split
    if split not in subfolders:
        stand_in = {"val": "test", "test": "val"}.get(split)
        if stand_in not in subfolders:
            raise FileNotFoundError(
                f"{folder} is not there, though {data_dir} has {', '.join(sorted(subfolders))}"
            )
        folder, note = data_dir / stand_in, f"the {stand_in} photographs"
    return listed(list_photographs(folder), note=note)


def _find_in_list(file: Path, split: str) -> Listing:
    lines = [line.strip() for line in read_lines(file)]
    names = [line for line in lines if line and not line.startswith("#")]
    # A path that is listed twice might land in two splits.
    paths = list(dict.fromkeys(_listed_path(file.parent, name) for name in names))
    if paths and not any(map(os.path.lexists, paths)):
        raise FileNotFoundError(f"{file} must have paths of files, got the line {names[0][:60]!r}")
    return listed(_split_by_path(paths, split, file.parent) if paths else [])


def _listed_path(folder: Path, name: str) -> str:
    """The path of a list's line; backslashes separate folders where no file has them in its name.

    Only relative paths with backslashes are converted: a drive letter means nothing elsewhere.
    """
    path = folder / name
    if "\\" in name and os.sep == "/" and not path.exists():
        path = folder / PureWindowsPath(name).as_posix()
    return os.path.normpath(path)


DATASET = DatasetSpec(
    name="folder",
    data_dir=None,
    shorter_side_ratio=PAPER_RATIO,
    crop="random",
    flip=True,
    lambda_adversarial=0.3,
    instructions="""\
--data-dir names a folder of images, at any depth, or a text file with one image path a line.
Subfolders train, val and test are the splits if they are there; otherwise the hash of each file's
path below DIR decides (90 %, 5 %, 5 %).""",
    find=_find,
)
