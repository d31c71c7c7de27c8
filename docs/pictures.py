"""Draws the pictures of README.md, MODEL_CARD.md and docs/results.md with the package's models.

    python -m docs.pictures strip --photographs DIR --output docs/images/strip.png
    python -m docs.pictures photo --output docs/images/model_photo.jpg
    python -m docs.pictures faces --output docs/images/model_faces.jpg
    python -m docs.pictures removals --photographs DIR --output docs/images/removals.jpg

The models' sheets show photographs that arrive with scikit-image and scikit-learn and may be shown;
none was trained on. The results are ranked by PSNR in the hole, and the best, the middle and the
worst of each kind of hole are drawn. `faces` has one face; its last row is a cat's face, for which
the model was not made.

`removals` shows twenty objects removed from eight CC0 photographs, by `photo` and by MI-GAN;
`strip` has two of them.
`removals.json` has the objects and their outlines, drawn by hand, in pixels of photographs that are
2,400 pixels wide. The photographs are not in the repository. MI-GAN's pipeline reads pixels under
the mask, so its hole is filled before (see `benchmarks.shipped_models`). The number beside a fill
is its detail, see `detail`; the medians are printed.
"""

import argparse
import io
import json
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from skimage import data
from sklearn import datasets as sklearn_datasets

from benchmarks import measure, models
from benchmarks.selections import hole_of
from musical_tf.files import write_whole
from musical_tf.metrics import evaluate_pair
from serving.session import InpaintingSession
from training.data import holes
from training.evaluation import baselines, drawings

Box = tuple[int, int, int, int]  # left, top, right, bottom

SIZE = 256
SHARES = {"center": None, "free-form 10%": 0.1, "free-form 30%": 0.3}
HOLES_OF_A_FACE = 4
"""Holes of each kind that the one face gets."""
FACE: Box = (136, 10, 316, 190)  # of `astronaut`, eyes and mouth about where CelebA aligns them
DETAIL = 89
"""Width in pixels of the photographs that `faces` was trained on."""
CAT: Box = (140, 45, 350, 255)  # the face in `chelsea`
STRIP = 13, 18
"""Numbers of the removals that the README shows."""
CELL = 320
CONTEXT = 1.7
"""Side of the part of a removal that is shown, in sides of the object."""
NAMES = "photo", "MI-GAN"
BORDER = 33
"""Side in pixels of the square that must lie wholly inside the hole, or outside, to be counted."""
CLOSE = 0.2
"""Largest difference of the detail from 1 that is called close."""


def face() -> np.ndarray:
    """`(S, S, 3)` uint8, as detailed as the training photographs of `faces`."""
    picture = Image.fromarray(data.astronaut()).crop(FACE)
    picture = picture.resize((DETAIL, DETAIL), Image.Resampling.LANCZOS)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def crop(image: np.ndarray, box: Box | None = None) -> np.ndarray:
    """`(S, S, 3)` uint8: the box, or the largest square in the middle."""
    picture = Image.fromarray(image)
    if box is None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
    return np.asarray(picture.crop(box).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def hole(share: float | None, index: int) -> np.ndarray:
    """`(S, S)` bool: the center, or strokes over this share."""
    source = holes.CenterHole(SIZE) if share is None else holes.IrregularHole(SIZE, share)
    return source.deterministic(index)


def tiles(session: InpaintingSession, image: np.ndarray, missing: np.ndarray) -> list[np.ndarray]:
    """Input, Telea's diffusion, the result of a model of the package, photograph."""
    return [
        np.where(missing[..., None], np.uint8(128), image),
        baselines.telea(image, missing),
        session.inpaint(image, missing),
        image,
    ]


def photographs(model: str) -> dict[str, np.ndarray]:
    """Name -> `(S, S, 3)` uint8."""
    if model == "faces":
        return {"astronaut": face()}
    china, flower = sklearn_datasets.load_sample_images().images
    named = {"astronaut": data.astronaut(), "chelsea": data.chelsea(), "china": china}
    named |= {"coffee": data.coffee(), "flower": flower, "rocket": data.rocket()}
    return {name: crop(image) for name, image in named.items()}


def sheet(options: argparse.Namespace) -> Image.Image:
    """The best, a typical and the worst result of a model for each kind of hole."""
    model = options.picture
    session, images = InpaintingSession(model), photographs(model)
    rows, captions = [], []

    def fill(name: str, kind: str, image: np.ndarray, index: int) -> tuple[float, str, list]:
        missing = hole(SHARES[kind], index)
        row = tiles(session, image, missing)
        psnr = evaluate_pair(image, row[2], missing, ["hole"])["hole/psnr"]
        return -psnr, f"{name}, {kind}: {psnr:.1f} dB in the hole", row

    def draw(why: str, filled: tuple[float, str, list]) -> None:
        rows.append(filled[2])
        captions.append([f"{why}: {filled[1]}", "", "", ""])

    for kind, share in SHARES.items():
        count = HOLES_OF_A_FACE if len(images) == 1 and share is not None else 1
        filled = [
            fill(name, kind, image, HOLES_OF_A_FACE * number + index)
            for number, (name, image) in enumerate(images.items())
            for index in range(count)
        ]
        filled.sort(key=lambda each: each[0])
        picks = {"best": 0, "typical": len(filled) // 2, "worst": len(filled) - 1}
        for why, index in (picks if len(filled) > 1 else {"the only one": 0}).items():
            draw(why, filled[index])
    if model == "faces":
        draw("not a human face", fill("chelsea", "center", crop(data.chelsea(), CAT), 0))
    return drawings.grid(rows, SIZE, ("Input", "Telea", model, "Photograph"), captions)


def window(outline: list[list[int]], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a square around the object, within the photograph."""
    low, high = np.min(outline, axis=0)[::-1], np.max(outline, axis=0)[::-1]
    sides = np.minimum(int(max(high - low) * CONTEXT), shape[:2])
    starts = np.clip((low + high - sides) // 2, 0, shape[:2] - sides)
    rows, columns = (slice(a, a + b) for a, b in zip(starts, sides, strict=True))
    return rows, columns


def outlined(image: np.ndarray, outline: list[list[int]], side: int) -> np.ndarray:
    """The photograph with the outline of the object; `side` is that of the part shown."""
    from PIL import ImageDraw

    picture = Image.fromarray(image)
    points = [tuple(point) for point in [*outline, outline[0]]]
    for color, share in (("black", 60), ("white", 110)):
        ImageDraw.Draw(picture).line(points, color, max(2, side // share), joint="curve")
    return np.asarray(picture)


def detail(filled: np.ndarray, image: np.ndarray, missing: np.ndarray) -> float:
    """Roughness of a fill, as a multiple of what the surroundings let expect; 1 is as rough.

    Both are the root mean square of the high-pass. Expected is the membrane spanned by the
    roughness around the hole. Pixels near the border, whose high-pass sees both sides, do not
    count.

    Args:
        filled, image: `(H, W, 3)` uint8.
        missing: `(H, W)` bool.
    """
    from musical_tf.layers import Membrane
    from musical_tf.layers.offset_graph import roughness_of
    from musical_tf.layers.offset_maps import erode

    hole = missing[None, ..., None].astype("float32")
    found, around = (
        np.asarray(roughness_of(each[None].astype("float32") / 255)) for each in (filled, image)
    )
    expected = np.asarray(Membrane()(around, 1.0 - np.asarray(erode(1.0 - hole, BORDER))))
    inner = np.asarray(erode(hole, BORDER)) > 0.5
    return float(np.sqrt(np.square(found[inner]).mean() / np.square(expected[inner]).mean()))


class Removal(NamedTuple):
    """An object to remove.

    Attributes:
        title: Number, photograph and object.
        image: `(H, W, 3)` uint8.
        missing: `(H, W)` bool.
        shown: The part that is drawn.
        marked: `image` with the outline of the object.
    """

    title: str
    image: np.ndarray
    missing: np.ndarray
    shown: tuple[slice, slice]
    marked: np.ndarray


def objects(folder: Path | None, numbers: Container[int] | None = None) -> Iterator[Removal]:
    """The objects of `removals.json`, all or some, with the photographs of a folder."""
    if folder is None:
        raise ValueError("--photographs must be the folder of the photographs, got nothing")
    entries = json.loads(Path(__file__).with_name("removals.json").read_text("utf-8"))
    for number, entry in enumerate(entries, 1):
        if numbers is not None and number not in numbers:
            continue
        with Image.open(folder / f"{entry['photograph']}.jpg") as file:
            image = np.asarray(file.convert("RGB"))
        missing = hole_of(entry["outline"], image.shape)
        shown = window(entry["outline"], image.shape)
        marked = outlined(image, entry["outline"], shown[0].stop - shown[0].start)
        title = f"{number}. {entry['photograph']}, {entry['object']}"
        yield Removal(title, image, missing, shown, marked)


def strip(options: argparse.Namespace) -> Image.Image:
    """The README's strip: the outlined object and the photograph without it, twice."""
    session = InpaintingSession("photo", ["cpu"], threads=models.THREADS)
    chosen = list(objects(options.photographs, STRIP))
    pairs = [(each.marked, session.inpaint(each.image, each.missing)) for each in chosen]
    cells = [
        picture[each.shown] for each, pair in zip(chosen, pairs, strict=True) for picture in pair
    ]
    return drawings.grid([cells], CELL, captions=[["Outlined", "Removed"] * len(chosen)], gap=12)


def removals(options: argparse.Namespace) -> Image.Image:
    """Two removals a row: the outlined object, `photo`, MI-GAN."""
    from benchmarks import shipped_models

    session = InpaintingSession("photo", ["cpu"], threads=models.THREADS)
    migan = shipped_models.migan()[shipped_models.MIGAN]
    pictures, captions, details = [], [], []
    for each in objects(options.photographs):
        theirs = migan.fill(each.image[None], each.missing[None])[0]
        filled = session.inpaint(each.image, each.missing), theirs
        pictures += [picture[each.shown] for picture in (each.marked, *filled)]
        parts = each.image[each.shown], each.missing[each.shown]
        details.append([detail(picture[each.shown], *parts) for picture in filled])
        captions.append(each.title)
        captions += [f"{name} {value:.2f}" for name, value in zip(NAMES, details[-1], strict=True)]
        print(*captions[-3:], sep="; ", file=sys.stderr, flush=True)
    medians = zip(NAMES, np.median(details, axis=0), strict=True)
    print("median detail:", ", ".join(f"{name} {each:.2f}" for name, each in medians))
    close = np.abs(np.array(details) - 1) <= CLOSE
    counts = zip(NAMES, close.sum(axis=0), strict=True)
    print(f"within {CLOSE:.0%} of 1:", ", ".join(f"{name} {each}" for name, each in counts))
    rows = [slice(start, start + 6) for start in range(0, len(pictures), 6)]
    cells, texts = [pictures[row] for row in rows], [captions[row] for row in rows]
    return drawings.framed(drawings.grid(cells, CELL, captions=texts), 16)


PICTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "strip": (strip, {"format": "PNG"}),
    "photo": (sheet, {"format": "JPEG", "quality": 90, "subsampling": 0}),
    "faces": (sheet, {"format": "JPEG", "quality": 90, "subsampling": 0}),
    "removals": (removals, {"format": "JPEG", "quality": 88}),
}
"""Name -> function and options of `Image.save`."""


@measure.command(
    measure.argument("picture", choices=tuple(PICTURES)),
    measure.argument("--output", required=True, type=Path),
    measure.argument("--photographs", type=Path, metavar="DIR", help="of strip and removals"),
)
def main(options: argparse.Namespace) -> None:
    """Runs the command line."""
    draw, save = PICTURES[options.picture]
    stream = io.BytesIO()
    draw(options).save(stream, optimize=True, **save)
    write_whole(options.output, stream.getvalue())


if __name__ == "__main__":
    sys.exit(main())
