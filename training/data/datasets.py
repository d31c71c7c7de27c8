"""The datasets by name, and how a split of one is opened."""

import os
from pathlib import Path

from musical_tf.arguments import did_you_mean

from . import celeba, demo, folder, paris_streetview, places_canyon
from .listing import SPLITS, DatasetSpec
from .photographs import CACHE_BYTES, Photographs, first_few

DATASETS: dict[str, DatasetSpec] = {
    module.DATASET.name: module.DATASET
    for module in (celeba, paris_streetview, places_canyon, folder, demo)
}


def get_spec(name: str) -> DatasetSpec:
    """Returns a dataset's description; raises ValueError on an unknown name, with the known."""
    if name in DATASETS:
        return DATASETS[name]
    hint = did_you_mean(name, DATASETS)
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

    CelebA's train is its partitions 0 and 1, as in the paper, and its val is partition 1, so val
    measures nothing new there. Paris StreetView, Places' canyon and the demo have no validation set
    of their own: their val is the test photographs, and `describe()` says so.

    Args:
        name, data_dir, split: A key of `DATASETS`, its folder (None for the default), of `SPLITS`.
        image_size, cache_bytes: See `Photographs`.
        shorter_side, crop, flip: Replace the dataset's own pre-processing. By default the shorter
            side of val and test photographs is `image_size`.
        resampling: A key of `RESAMPLING`; by default bilinear for train, and bicubic, the authors'
            filter, for val and test.

    Raises:
        ValueError: On an unknown name or split, or a list that makes no sense.
        FileNotFoundError: If the dataset or the split is not there, with what to download.
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
        absent = f": {first_few(listing.skipped)}" if listing.skipped else ""
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
