"""The folder that results are written to: whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .page import PICTURES


class OutputFolder:
    """Where results go: its files appear when all of them are finished, `results.json` last.

    `form` is the `format` of the `results.json` that may be replaced, `what` leaves it.

    Raises:
        FileExistsError, NotADirectoryError: If publishing would overwrite other files.
    """

    def __init__(self, folder: str | Path, form: str, files: Sequence[str], what: str):
        self.folder = Path(folder)
        self.files = tuple(files)
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"--output {folder}: not a folder")
        there = [name for name in (*files, PICTURES) if (self.folder / name).exists()]
        if there and self._format() != form:
            raise FileExistsError(
                f"--output {folder}: holds {', '.join(there)}, not from a finished {what}; "
                "choose another folder"
            )

    def _format(self) -> str | None:
        try:
            text = (self.folder / "results.json").read_text(encoding="utf-8")
            return json.loads(text).get("format")
        except (OSError, ValueError, AttributeError):
            return None

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder inside, made before anything is measured and always removed.

        Inside and not next to it: the output may be a mount, whose sibling is another file system.
        """
        created = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".evaluation-", dir=self.folder))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if created and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def publish(self, stage: Path, results: Mapping[str, Any]) -> None:
        """Writes `results.json` into the stage and moves the finished files into place, it last.

        Files that the stage lacks are removed: they would be another measurement's.
        """
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (stage / "results.json").write_text(text + "\n", encoding="utf-8")
        # Without it first, so that a replacement cut short is not taken for either evaluation.
        (self.folder / "results.json").unlink(missing_ok=True)
        if (self.folder / PICTURES).exists():
            os.replace(self.folder / PICTURES, stage / "earlier-images")
        if (stage / PICTURES).exists():
            os.replace(stage / PICTURES, self.folder / PICTURES)
        for name in self.files:
            if (stage / name).exists():
                os.replace(stage / name, self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
