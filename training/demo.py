"""Erases a road sign from a large photograph, then trains, evaluates and exports a small network.

    python -m training.demo --output demo

Every step is one of the project's own command lines, printed before it runs. Nothing is downloaded:
the large photograph is part of the package, those to train on arrive with scikit-image and
scikit-learn. Run again, it resumes; when nothing is left to do it draws the same picture.
"""

import argparse
import contextlib
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from musical_tf.arguments import Parser
from musical_tf.command_line import INTERRUPTED
from musical_tf.files import whole_file
from musical_tf.run_directory import RunDirectory

from .data.datasets import open_dataset
from .data.holes import open_masks
from .data.pipeline import evaluation_samples
from .evaluation import drawings
from .recipes import Recipe

PROGRAM = "musical-demo"

SHIPPED = "photo"
"""The model of the package that erases the sign and fills the same photographs, for comparison."""

PHOTOGRAPH = Path(__file__).parent / "data" / "tunnel.jpg"
MASK = PHOTOGRAPH.with_name("tunnel_mask.png")
"""A photograph of 2000 x 1333 pixels with a road sign, and the mask of the sign."""

STEPS = 400
"""Training steps: two thirds of the demo recipe's, so that everything fits into four minutes."""

COLUMNS = ("input", "hole", "result", f"the package's {SHIPPED}", "truth")


class CommandError(RuntimeError):
    """A step's command line returned an exit code other than 0, after a message of its own."""

    def __init__(self, code: int):
        super().__init__(f"exit code {code}")
        self.code = code


def run(module: str, *arguments: str | Path) -> None:
    """Prints a command line as a user would type it, and runs it in a process of its own.

    A process each, because one that has trained on a GPU holds all of its memory to the end, and
    because filling photographs has to work where TensorFlow was never imported.

    Raises:
        CommandError: If `module`, such as "training.fit", ends with anything but 0.
    """
    words = [str(argument) for argument in arguments]
    is_script = module.startswith("export.")
    shown = f"{module.replace('.', '/')}.py" if is_script else f"-m {module}"
    print(f"\n$ python {shown} {shlex.join(words)}", flush=True)
    # The folders are at the top of a checkout and inside `musical_tf` once installed.
    root = (__package__ or "training").removesuffix("training")
    command = [sys.executable, "-m", f"{root}{module}", *words]
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as process:
        # SIGTERM ends the step, which saves first, instead of this process.
        before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        try:
            while process.poll() is None:
                # Ctrl-C reaches both processes: this one waits until the other has saved.
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code := process.returncode:
        # Negative: ended by that signal; a shell would say 128 + signal.
        raise CommandError(code if code > 0 else 128 - code)


def write_image(path: Path, image: Image.Image) -> None:
    """Writes a PNG whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        image.save(partial, format="PNG")


def erase(output: Path) -> Path:
    """Erases the sign from `PHOTOGRAPH` with the shipped model; returns the result's path.

    `output` gets `erased/input.jpg`, `erased/hole.png` and `erased/result.png`. Raises as `run`.
    """
    folder = output / "erased"
    folder.mkdir(parents=True, exist_ok=True)
    image, mask, result = (folder / name for name in ("input.jpg", "hole.png", "result.png"))
    shutil.copyfile(PHOTOGRAPH, image)
    shutil.copyfile(MASK, mask)
    words = ("--model", SHIPPED, "--image", image, "--mask", mask, "--output", result)
    run("serving.predict", *words)
    return result


def write_held_out(folder: Path, recipe: Recipe) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Writes the photographs that no step trains on, and a mask for each, as PNG files.

    `folder` gets `photographs/NAME.png` and `masks/NAME.png`, white where the hole is.

    Returns:
        Name, photograph `(H, W, 3)` uint8, hole `(H, W)` bool, for each.
    """
    size = recipe.image_size
    photographs = open_dataset("demo", None, "test", size)
    samples = evaluation_samples(photographs, open_masks(recipe.mask, size))
    held_out = []
    for path, photograph, hole in samples:
        name = Path(path).stem
        write_image(folder / "photographs" / f"{name}.png", Image.fromarray(photograph))
        write_image(folder / "masks" / f"{name}.png", Image.fromarray(hole.astype(np.uint8) * 255))
        held_out.append((name, photograph, hole))
    return held_out


def draw_picture(rows: Sequence[Sequence[np.ndarray]], caption: str, tile: int) -> Image.Image:
    """Draws input, hole, both results and truth side by side, one photograph a row.

    A row is the photograph, `(H, W, 3)` uint8, its hole, `(H, W)` bool, and both results; `tile` is
    the side of a photograph in the picture, in pixels.
    """
    pictures = []
    for photograph, hole, *results in rows:
        erased = np.where(hole[..., np.newaxis], np.uint8(128), photograph)
        mask = np.repeat(hole[..., np.newaxis].astype(np.uint8) * 255, 3, axis=2)
        pictures.append([erased, mask, *results, photograph])
    return drawings.framed(drawings.grid(pictures, tile, COLUMNS, title=caption), 16)


def demonstrate(output: Path, steps: int, settings: Sequence[str] = ()) -> Path:
    """Runs every step and returns the picture's path.

    `output` gets everything: `erased/`, `run/`, `evaluation/`, `saved_model/`, `model.onnx`, the
    held-out photographs with their masks and both models' results, and the picture.

    Raises:
        CommandError: If one of the commands fails.
        OSError, ValueError: If something cannot be written or read.
    """
    print(f"Without the sign: {erase(output).resolve()}")
    run_dir, model = output / "run", output / "model.onnx"
    changes = [word for setting in settings for word in ("--set", setting)]
    resume = ["--resume"] if RunDirectory(run_dir).is_run else []
    length = ("--steps", str(steps))
    run("training.fit", "--dataset", "demo", *length, *changes, "--run-dir", run_dir, *resume)
    recipe = Recipe.of(RunDirectory(run_dir).recipe())
    where = ("--run", run_dir, "--output", output / "evaluation")
    run("training.evaluate", "--dataset", "demo", *where)
    run("export.to_saved_model", "--run", run_dir, "--output", output / "saved_model")
    run("export.to_onnx", "--run", run_dir, "--output", model)

    held_out = write_held_out(output, recipe)
    filled: dict[str | Path, Path] = {
        model: output / "filled",
        SHIPPED: output / f"filled_{SHIPPED}",
    }
    for each, folder in filled.items():
        images: list[str | Path] = ["--image", output / "photographs", "--mask", output / "masks"]
        run("serving.predict", "--model", each, *images, "--output", folder)
    rows = []
    for name, photograph, hole in held_out:
        results = []
        for folder in filled.values():
            with Image.open(folder / f"{name}.png") as image:
                results.append(np.asarray(image.convert("RGB")))
        rows.append((photograph, hole, *results))
    size = recipe.image_size
    caption = (
        f"{recipe.steps} steps on the other photographs of scikit-image and scikit-learn; "
        f"{size} x {size} pixels; filled by ONNX Runtime"
    )
    picture = output / "inpainting.png"
    write_image(picture, draw_picture(rows, caption, tile=size * math.ceil(256 / size)))
    return picture


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    result = Parser(
        prog=PROGRAM,
        description="Erases a road sign from a large photograph with a model of the package. Then "
        "trains, evaluates and exports a small network, fills photographs and draws one picture.",
    )
    result.add_argument(
        "--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)"
    )
    result.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help=f"training steps (default: {STEPS}, some minutes on two processor cores)",
    )
    result.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another key of the recipe, as for training.fit; may be repeated",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; a failed step's exit code; 1 for another failure; 2 for wrong input; 130 after Ctrl-C.
    """
    arguments = parser().parse_args(argv)
    if arguments.steps < 1:
        print(
            f"{PROGRAM}: error: --steps must be at least 1, got {arguments.steps}", file=sys.stderr
        )
        return 2
    started = time.monotonic()
    try:
        picture = demonstrate(arguments.output, arguments.steps, arguments.set)
    except (KeyboardInterrupt, CommandError) as stop:
        code = stop.code if isinstance(stop, CommandError) else INTERRUPTED
        again = f"run it again to continue, or remove {arguments.output} to start over"
        print(f"\n{PROGRAM}: {'interrupted' if code == INTERRUPTED else 'stopped'}; {again}")
        return code
    except (OSError, ValueError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - started:.0f} s. The picture: {picture.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
