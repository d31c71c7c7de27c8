"""Pairs photographs with masks and outputs before anything is written."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musical_tf import images
from musical_tf.files import check_writable_kind

ALPHA = "alpha"


@dataclass(frozen=True)
class Job:
    """One image to fill. `mask` is a file, `ALPHA`, or None with the reason in `problem`."""

    image: Path
    mask: Path | str | None
    output: Path
    problem: str = ""


def list_jobs(
    image: Path,
    mask: Path | str,
    output: Path,
    *,
    into_folder: bool = False,
    suffix: str | None = None,
    overwrite_input: bool = False,
    protected: Path | None = None,
) -> tuple[list[Job], list[str]]:
    """Pairs images with masks and outputs before anything is written.

    Args:
        image: A file, or a folder, which is walked with its subfolders. Hidden files are left out,
            and so are the mask, or the folder of masks, and the output where they lie inside.
        mask: A file for every image, a folder, or `ALPHA`.
        output: A file, or a folder. A folder is what it is for a folder of images.
        into_folder: Take `output` for a folder although it does not exist yet.
        suffix: Of the outputs in a folder; that of their inputs by default.
        overwrite_input: Allow an output that is its own input.
        protected: A further file that may not be written over, the model.

    Returns:
        `(jobs, notes)`: jobs in order of path; notes for the user, such as masks without an image.

    Raises:
        FileNotFoundError: If an input does not exist.
        ImageError: If there is nothing to do, if outputs would collide or write over an input, or
            if a format is not writable.
    """
    for path, what in ((image, "image"), (mask, "mask"), (output, "output")):
        if isinstance(path, Path) and (root := _real(path)) == Path(root.anchor):
            raise images.ImageError(f"--{what} must not be the root folder, got {path}")
    for path, what in ((image, "image"), (mask, "mask")):
        if isinstance(path, Path) and not path.exists():
            raise FileNotFoundError(f"{path}: no such {what} file or folder")
    if image.is_dir():
        jobs, notes = _list_folder(image, mask, output, suffix)
    else:
        target = output
        if output.is_dir() or into_folder:
            target = _writable_name(output / image.name, suffix)
        elif suffix is not None and images.format_of(output) != images.WRITABLE[suffix]:
            raise images.ImageError(f"{output}: its suffix and --format name different formats")
        images.format_of(target)
        found: Path | str | None = mask
        problem = ""
        if isinstance(mask, Path) and mask.is_dir():
            found, problem = _only(_masks_of_one(image, mask), mask, image)
        jobs, notes = [Job(image, found, target, problem)], []
    _guard(jobs, overwrite_input, protected)
    return jobs, notes


def _list_folder(
    folder: Path, mask: Path | str, output: Path, suffix: str | None
) -> tuple[list[Job], list[str]]:
    if output.exists() and not output.is_dir():
        raise images.ImageError(f"{output}: --image is a folder, so --output must be one too")
    masks_at = mask if isinstance(mask, Path) else None
    inside = [path for path in (output, masks_at) if path and not _is_same(path, folder)]
    left_out: list[Path] = []
    unreadable: list[OSError] = []
    loops: list[Path] = []
    paths = list(
        images.find_images(
            folder, excluded=inside, left_out=left_out, unreadable=unreadable, loops=loops
        )
    )
    if not paths and unreadable:
        raise unreadable[0]
    if not paths:
        raise images.ImageError(
            f"{folder}: no image files in this folder (known: {' '.join(images.READABLE)})"
        )
    notes: list[str] = []
    masks = None
    if masks_at is not None and masks_at.is_dir():
        masks = _Masks(paths, folder, masks_at, notes)
        paths = masks.photographs
    jobs = []
    for path in paths:
        target = output / path.relative_to(folder)
        if masks is None or masks_at is None:
            jobs.append(Job(path, mask, _writable_name(target, suffix)))
            continue
        found = masks.of(path)
        if len(found) > 1 and len({one.stem for one in found}) == len(found):
            jobs += [
                Job(path, one, _writable_name(target.with_name(one.stem + path.suffix), suffix))
                for one in found
            ]
        else:
            only, problem = _only(found, masks_at, path)
            jobs.append(Job(path, only, _writable_name(target, suffix), problem))
    for error in unreadable:
        path = Path(error.filename)
        jobs.append(Job(path, None, output / path.relative_to(folder), f"{error.strerror}"))
    if masks:
        notes += masks.unused()
    if loops:
        notes.append(f"links to a folder above, not followed: {len(loops)}, such as {loops[0]}")
    if left_out:
        kinds = sorted({path.suffix.lower() or path.name for path in left_out})
        notes.append(
            f"files left out, of no known format: {len(left_out)} "
            f"({' '.join(kinds[:8])}{' ...' if len(kinds) > 8 else ''})"
        )
    return jobs, notes


def formats_of(jobs: Sequence[Job]) -> set[str]:
    """The formats of the outputs; an empty text for one that is not written."""
    return {images.WRITABLE.get(job.output.suffix.lower(), "") for job in jobs}


class _Masks:
    """The masks of a folder by their photographs' paths without suffix.

    Args:
        paths: The image files.
        folder: Their folder.
        mask_folder: The folder of masks. In the folder of the images, `images.MASK_NAME` tells
            which of the files are masks.
        notes: Gets a sentence for each part of the folder that cannot be read.
    """

    def __init__(
        self, paths: Sequence[Path], folder: Path, mask_folder: Path, notes: list[str]
    ) -> None:
        self._folder = folder
        self._exact: dict[Path, list[Path]] = {}
        self._named: dict[Path, list[Path]] = {}
        self._used: set[Path] = set()
        self.photographs = list(paths)
        stems = {self._key(path) for path in paths}
        if _is_same(mask_folder, folder):
            self._add_named(paths, folder)
            masks = images.masks_beside(paths)
            if not masks:
                raise images.ImageError(
                    f"{folder}: --image and --mask are one folder, so the mask of cat.jpg must "
                    "have a name like cat_mask.png or cat_mask001.png, got none"
                )
            orphans = {one for found in self._named.values() for one in found}
            self.photographs = [
                path
                for path in paths
                if path not in masks and (path not in orphans or self._key(path) in self._named)
            ]
            return
        unreadable: list[OSError] = []
        found = list(images.find_images(mask_folder, unreadable=unreadable))
        notes += [f"masks left out: {error.filename}: {error.strerror}" for error in unreadable]
        for path in found:
            self._exact.setdefault(path.relative_to(mask_folder).with_suffix(""), []).append(path)
        self._add_named(
            [one for stem in self._exact.keys() - stems for one in self._exact[stem]], mask_folder
        )

    def _key(self, path: Path) -> Path:
        return path.relative_to(self._folder).with_suffix("")

    def _add_named(self, paths: Sequence[Path], folder: Path) -> None:
        for path in sorted(paths):
            if match := images.MASK_NAME.fullmatch(path.stem):
                key = path.relative_to(folder).with_name(match[1])
                self._named.setdefault(key, []).append(path)

    def of(self, image: Path) -> list[Path]:
        """The masks of an image."""
        key = self._key(image)
        found = self._exact.get(key) or self._named.get(key, [])
        self._used.update(found)
        return found

    def unused(self) -> list[str]:
        """A sentence about the masks that `of` has not given."""
        every = {one for found in (self._exact | self._named).values() for one in found}
        unused = sorted(every - self._used - set(self.photographs))
        if not unused:
            return []
        return [f"masks without an image: {len(unused)}, for instance {unused[0]}"]


def _masks_of_one(image: Path, folder: Path) -> list[Path]:
    """The masks of a single image in a folder of masks."""
    if _is_same(folder, image.parent):
        found = [path for path in images.find_images(folder) if path.parent == folder]
    else:
        found = list(images.find_images(folder))
        if exact := [path for path in found if path.stem == image.stem]:
            return exact
    matches = ((path, images.MASK_NAME.fullmatch(path.stem)) for path in found)
    return [path for path, match in matches if match and match[1] == image.stem]


def _only(found: list[Path], folder: Path, image: Path) -> tuple[Path | None, str]:
    """The mask of an image, or None and why there is none."""
    if len(found) == 1:
        return found[0], ""
    if found:
        names = ", ".join(path.name for path in found)
        return None, f"several masks match it in {folder}: {names}"
    stem = image.stem
    return None, f"no mask of the same name in {folder} ({stem}, {stem}_mask or {stem}_mask001)"


def _writable_name(path: Path, suffix: str | None = None) -> Path:
    """The name an input's output gets, in the format of `suffix` if there is one."""
    own = images.WRITABLE.get(path.suffix.lower())
    if own is None or (suffix is not None and own != images.WRITABLE[suffix]):
        return path.with_suffix(suffix or ".png")
    return path


def _real(path: Path) -> Path:
    """`Path.resolve`, which raises `RuntimeError` for a loop of links."""
    return Path(os.path.realpath(path))


def _resolver() -> Callable[[Path], Path]:
    """`_real` for many files of few folders, each of which is looked up once."""
    folder = functools.cache(_real)

    @functools.cache
    def resolve(path: Path) -> Path:
        if path.name in ("", "..") or os.path.islink(path):
            return _real(path)
        return folder(path.parent) / path.name

    return resolve


def _is_same(first: Path, second: Path, resolve: Callable[[Path], Path] = _real) -> bool:
    return resolve(first) == resolve(second) or (
        first.exists() and second.exists() and first.samefile(second)
    )


def _guard(jobs: list[Job], overwrite_input: bool, protected: Path | None) -> None:
    """Refuses outputs that would write over each other or over an input."""
    resolve = _resolver()
    by_output: dict[Path, int] = {}
    inputs = {resolve(job.image) for job in jobs}
    masks = {resolve(job.mask) for job in jobs if isinstance(job.mask, Path)}
    for index, job in enumerate(jobs):
        output = resolve(job.output)
        try:
            check_writable_kind(job.output)
        except OSError as error:
            jobs[index] = replace(job, problem=f"{job.output}: {error.strerror}")
        if isinstance(job.mask, Path) and _is_same(job.mask, job.image, resolve):
            problem = (
                "the mask must be another file than the image (--mask alpha reads transparency)"
            )
            jobs[index] = replace(job, problem=problem)
        if output in by_output:
            # Neither is written, and the others are.
            first = by_output[output]
            for one, other in ((index, first), (first, index)):
                problem = f"{jobs[other].image} would be written to {job.output} as well"
                jobs[one] = replace(jobs[one], problem=problem)
        by_output.setdefault(output, index)
        if output in masks or (protected is not None and _is_same(job.output, protected, resolve)):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if isinstance(job.mask, Path) and _is_same(job.output, job.mask, resolve):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if _is_same(job.output, job.image, resolve):
            if not overwrite_input:
                raise images.ImageError(
                    f"{job.output}: the output would replace its input; "
                    "choose another, or use --overwrite-input"
                )
        elif output in inputs:
            raise images.ImageError(f"{job.output}: the output would replace another input")
