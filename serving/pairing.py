"""Pairs photographs with masks and outputs before anything is written."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musical_tf import images

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
        found, problem = mask, ""
        if isinstance(mask, Path) and mask.is_dir():
            found, problem = _only([path for path in _walk(mask) if path.stem == image.stem], mask)
        jobs, notes = [Job(image, found, target, problem)], []
    _guard(jobs, overwrite_input, protected)
    return jobs, notes


def _list_folder(
    folder: Path, mask: Path | str, output: Path, suffix: str | None
) -> tuple[list[Job], list[str]]:
    if output.exists() and not output.is_dir():
        raise images.ImageError(f"{output}: --image is a folder, so --output must be one too")
    mask_folder = mask if isinstance(mask, Path) and mask.is_dir() else None
    masks_at = mask if isinstance(mask, Path) else None
    inside = [path for path in (output, masks_at) if path and not _is_same(path, folder)]
    left_out: list[Path] = []
    unreadable: list[OSError] = []
    paths = list(_walk(folder, inside, left_out, unreadable))
    if not paths and unreadable:
        raise unreadable[0]
    if not paths:
        raise images.ImageError(
            f"{folder}: no image files in this folder (known: {' '.join(images.READABLE)})"
        )
    masks: dict[Path, list[Path]] = {}
    for path in _walk(mask_folder) if mask_folder else ():
        masks.setdefault(path.relative_to(mask_folder).with_suffix(""), []).append(path)
    jobs, used = [], set()
    for path in paths:
        relative = path.relative_to(folder)
        found, problem = mask, ""
        if mask_folder:
            stem = relative.with_suffix("")
            used.add(stem)
            found, problem = _only(masks.get(stem, []), mask_folder)
        jobs.append(Job(path, found, _writable_name(output / relative, suffix), problem))
    for error in unreadable:
        path = Path(error.filename)
        jobs.append(Job(path, None, output / path.relative_to(folder), f"{error.strerror}"))
    unused = sorted(str(path) for stem in masks.keys() - used for path in masks[stem])
    notes = []
    if unused:
        notes.append(f"masks without an image: {len(unused)}, for instance {unused[0]}")
    if left_out:
        kinds = sorted({path.suffix.lower() or path.name for path in left_out})
        notes.append(
            f"files left out, of no known format: {len(left_out)} "
            f"({' '.join(kinds[:8])}{' ...' if len(kinds) > 8 else ''})"
        )
    return jobs, notes


def _walk(
    folder: Path,
    excluded: Sequence[Path] = (),
    left_out: list[Path] | None = None,
    unreadable: list[OSError] | None = None,
) -> Iterator[Path]:
    """Image files below a folder in order of path, without hidden and excluded files and folders.

    Other files are added to `left_out`, and the errors of folders that cannot be listed to
    `unreadable`.
    """
    resolve = _resolver()
    skipped = {path.resolve() for path in excluded}
    report = None if unreadable is None else unreadable.append
    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and resolve(Path(parent) / name) not in skipped
        )
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith(".") or resolve(path) in skipped:
                continue
            if path.suffix.lower() in images.READABLE:
                yield path
            elif left_out is not None:
                left_out.append(path)


def _only(found: list[Path], folder: Path) -> tuple[Path | None, str]:
    """The mask of an image, or None and why there is none."""
    if len(found) == 1:
        return found[0], ""
    if found:
        names = ", ".join(path.name for path in found)
        return None, f"several masks match it in {folder}: {names}"
    return None, f"no mask of the same name in {folder}"


def _writable_name(path: Path, suffix: str | None = None) -> Path:
    """The name an input's output gets, in the format of `suffix` if there is one."""
    own = images.WRITABLE.get(path.suffix.lower())
    if own is None or (suffix is not None and own != images.WRITABLE[suffix]):
        return path.with_suffix(suffix or ".png")
    return path


def _resolver() -> Callable[[Path], Path]:
    """`Path.resolve` for many files of few folders, each of which is looked up once."""
    folder = functools.cache(Path.resolve)

    @functools.cache
    def resolve(path: Path) -> Path:
        if path.name in ("", "..") or os.path.islink(path):
            return path.resolve()
        return folder(path.parent) / path.name

    return resolve


def _is_same(first: Path, second: Path, resolve: Callable[[Path], Path] = Path.resolve) -> bool:
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
                    "choose another, or ask for it with --overwrite-input"
                )
        elif output in inputs:
            raise images.ImageError(f"{job.output}: the output would replace another input")
