"""CelebA, faces; section 4.1 of the paper."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from musical_tf.files import open_regular

from .listing import DatasetSpec, Listing, read_lines
from .photographs import UnusableImageError

MAX_FILE_BYTES = 512 * 1024**2
"""Larger members of a zip file are skipped: a member is unpacked in memory."""


def _find(data_dir: Path, split: str) -> Listing:
    name = "list_eval_partition"
    places = [data_dir / f"{name}.txt", data_dir / "Eval" / f"{name}.txt", data_dir / f"{name}.csv"]
    partition_file = next((place for place in places if place.is_file()), None)
    if partition_file is None:
        raise FileNotFoundError(f"{data_dir / 'list_eval_partition.txt'} is not there")
    # Section 4.1: "We use both of the training set and validation set for training".
    wanted = {"train": (0, 1), "val": (1,), "test": (2,)}[split]
    names = [name for name, partition in _read_partitions(partition_file) if partition in wanted]

    opener: Callable[[str], BinaryIO] = open_regular
    folder, archive = data_dir / "img_align_celeba", data_dir / "img_align_celeba.zip"
    if folder.is_dir():
        if (folder / "img_align_celeba").is_dir():
            folder = folder / "img_align_celeba"
        root, there = folder, set(os.listdir(folder))
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
    except (zipfile.BadZipFile, NotImplementedError) as error:  # or a version it cannot read
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


DATASET = DatasetSpec(
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
    find=_find,
)
