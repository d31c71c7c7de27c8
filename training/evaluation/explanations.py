"""The section of a page that shows what holes were filled from: copied pixels and attention.

A reader chooses a position of the hole and sees everything it was filled from. The section needs no
network and nothing but the pictures next to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from . import attention_maps, source_maps

if TYPE_CHECKING:
    from musical_tf.layers.attention_maps import AttentionMap

CHOICES = 16
"""Positions a reader may choose between along each side of the hole."""


@dataclass(frozen=True)
class Item:
    """One result in the section of a page.

    Attributes:
        title: What a reader chooses it by, for example the file's name.
        stem: Beginning of its pictures' names, unique on the page.
        image, result: `(H, W, 3)` uint8 RGB, the photograph and the filled photograph.
        maps: Scale -> map, as `RunPredictor.attention_maps` gives them, of one sample.
        source: `(H, W, 2)` int32, as `sources` of a model that copies gives it; None of others.
    """

    title: str
    stem: str
    image: np.ndarray
    result: np.ndarray
    maps: Mapping[str, "AttentionMap"] = field(default_factory=dict)
    source: np.ndarray | None = None


def write_section(folder: Path, items: Sequence[Item], pictures: str = "images") -> dict[str, Any]:
    """Writes the items' pictures and describes what the page shows of them.

    Returns:
        What `templates/attention.html.j2` gets: "items", in JSON's types; "wheel", the legend's
        file; "reach"; and "cards", all drawings of each item.
    """
    if not items:
        raise ValueError("attention maps: expected at least one item, got none")
    (folder / pictures).mkdir(parents=True, exist_ok=True)
    wheel = f"{pictures}/attention-wheel.png"
    attention_maps.draw_wheel(240).save(folder / wheel, optimize=True)
    described = [_write_item(folder, pictures, item) for item in items]
    return {
        "wheel": wheel,
        "reach": f"{100 * attention_maps.REACH:.0f} %",
        "items": described,
        "cards": [_card(item) for item in described],
    }


def _card(item: Mapping[str, Any]) -> dict[str, Any]:
    """All drawings of an item next to each other, as the page's cards are described."""
    pictures = [
        {"label": f"{label}, {scale['label']}", "file": file, "of": item["title"]}
        for scale in item["scales"]
        for label, file in scale["drawings"]
    ]
    words = "; ".join(f"{scale['label']}: {scale['words']}" for scale in item["scales"])
    return {"title": item["title"], "words": words, "pictures": pictures}


def _write_item(folder: Path, pictures: str, item: Item) -> dict[str, Any]:
    def save(picture: Image.Image, name: str) -> str:
        file = f"{pictures}/{item.stem}-{name}.png"
        picture.save(folder / file)
        return file

    scales = []
    if item.source is not None:
        drawn = {
            "Places": source_maps.draw_places(item.source, item.image),
            "Copies": source_maps.draw_copies(item.source, item.result),
        }
        scales.append(
            {
                "label": "copied pixels",
                "drawings": [[k, save(v, f"source-{k.lower()}")] for k, v in drawn.items()],
                "words": source_maps.describe(item.source),
                **source_maps.positions(item.source),
                "atlas": None,
            }
        )
    for name, attention in item.maps.items():
        drawn = {
            "Color map": attention_maps.draw_flow(attention, item.image),
            "Arrows": attention_maps.draw_arrows(attention, item.result),
            "Used by the hole": attention_maps.draw_usage(attention, item.result),
        }
        chosen = attention_maps.choose_positions(attention.filled[0], CHOICES**2)
        atlas, described = _atlas(attention, chosen)
        stem = f"attention-{name}"
        scales.append(
            {
                "label": f"{name.replace('x', ' × ')} patches",
                "drawings": [
                    [label, save(picture, f"{stem}-{label.split()[0].lower()}")]
                    for label, picture in drawn.items()
                ],
                "words": attention_maps.describe(attention),
                "map": list(attention.filled.shape[1:]),
                "side": 1,
                **described,
                "atlas": save(atlas, f"{stem}-weights"),
            }
        )
    height, width = item.image.shape[:2]
    background = save(Image.fromarray(item.result), "filled")
    return {
        "title": item.title,
        "size": [width, height],
        "background": background,
        "scales": scales,
    }


def _atlas(attention: "AttentionMap", chosen: np.ndarray) -> tuple[Image.Image, dict[str, Any]]:
    """Every chosen position's weights as one tile of a picture, in its alpha channel.

    A tile is relative to its own largest weight on a known position, which is told beside it.
    """
    found = attention.strongest(attention_maps.LISTED)
    known = ~attention.missing[0]
    columns = max(1, int(np.ceil(np.sqrt(len(chosen)))))
    height, width = known.shape
    rows = max(1, -(-len(chosen) // columns))
    atlas = np.zeros((rows * height, columns * width, 2), np.uint8)
    atlas[..., 0] = 255
    positions = []
    of_chosen = attention.weights_of_many(0, chosen)
    for number, ((row, column), weights) in enumerate(zip(chosen.tolist(), of_chosen, strict=True)):
        largest = max(float(weights[known].max(initial=0.0)), 1e-30)
        tile = np.rint(255 * np.clip(weights / largest, 0.0, 1.0)).astype(np.uint8)
        top, left = number // columns * height, number % columns * width
        atlas[top : top + height, left : left + width, 1] = tile
        at = (0, row, column)
        sources = [
            [*place, _rounded(weight)]
            for place, weight in zip(
                found.positions[at].tolist(), found.weights[at].tolist(), strict=True
            )
            if weight > 0
        ]
        positions.append(
            [row, column, sources, _rounded(found.spread[at]), _rounded(found.known_share[at])]
        )
    return Image.fromarray(atlas, "LA"), {"columns": columns, "positions": positions}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
