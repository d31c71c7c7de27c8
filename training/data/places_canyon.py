"""The canyons of Places365; section 4.1 of the paper."""

import os
from pathlib import Path

from .listing import (
    PAPER_RATIO,
    DatasetSpec,
    Listing,
    find_in_folders,
    first_folder,
    listed,
    read_lines,
)


def _find(data_dir: Path, split: str) -> Listing:
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
    flat = first_folder(data_dir, ("val_256", "val_large"))
    if split != "train" and flat is not None:
        return _canyon_of_val_list(data_dir, flat)
    # The paper tests on Places' validation images, so that "val" and "test" are the same
    # photographs here.
    return find_in_folders(data_dir, split, folders)


def _canyon_of_val_list(data_dir: Path, folder: Path) -> Listing:
    """Picks the canyons out of Places365's flat validation folder, by its two lists."""
    lists: dict[str, Path] = {}
    for name in ("categories_places365.txt", "places365_val.txt"):
        places = [data_dir / name, data_dir / "filelist_places365-standard" / name]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{folder} is there, but its list {places[0]} is not")
        lists[name] = found
    categories = _read_pairs(lists["categories_places365.txt"])
    number = next((number for name, number in categories if name.strip("/") == "c/canyon"), None)
    if number is None:
        raise ValueError(f"{lists['categories_places365.txt']} has no category /c/canyon")
    paths = [
        str(folder / name)
        for name, category in _read_pairs(lists["places365_val.txt"])
        if category == number
    ]
    there = set(filter(os.path.isfile, paths))
    why = "listed in places365_val.txt, but not there"
    absent = {path: why for path in paths if path not in there}
    return listed([path for path in paths if path in there], absent)


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


DATASET = DatasetSpec(
    name="places_canyon",
    data_dir="data/places_canyon",
    shorter_side_ratio=PAPER_RATIO,
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
    find=_find,
)
