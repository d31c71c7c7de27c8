"""The papers' own figures, to stand beside measured ones, and why they may not be comparable.

Nothing here is measured by this project. Every figure is a paper's, under the name of the metric
that its definition comes nearest to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TITLES = {
    "musical": "MUSICAL",
    "deepfill_v1": "DeepFill v1",
    "csa": "CSA",
    "shift_net": "Shift-Net",
    "glc": "GLC",
    "context_encoder": "Context Encoder",
}
"""Method -> what its paper calls it."""

ABLATIONS = {
    "no_adversarial": "Experiment 1: no adversarial term",
    "single_scale": "Experiment 2: single-scale attention",
    "no_attention": "No attention",
    "no_se": "No squeeze-and-excitation",
}
"""Ablations of MUSICAL; the paper's Figure 6 has the first two, in this order."""


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        source: Paper and table.
        dataset: A key of `data.datasets.DATASETS`, or another name where it is none of them.
        subject: What the paper measured, in words.
        image_size: Pixels.
        mask: Kind of hole.
        test_scale: Shorter side of the test photographs before the center crop, in units of the
            image size.
        resampling: Filter that resizes the test photographs, a key of
            `data.photographs.RESAMPLING`.
        count: Test photographs; None where the paper does not say.
        metrics: Metrics of `musical_tf.metrics`, in the paper's order.
        rows: The paper's label, the method or baseline it is, None for neither, and its figures as
            the paper prints them.
        notes: What a reader has to know.
    """

    source: str
    dataset: str
    subject: str
    image_size: int
    mask: str
    count: int | None
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, str | None, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()
    test_scale: float = 1.0
    resampling: str = "bicubic"

    def differences(self, results: Mapping[str, Any]) -> list[str]:
        """Returns why the paper's figures are of something else; empty if nothing known differs."""
        found = []
        if results["dataset"] != self.dataset:
            found.append(f"{results['dataset']} here, {self.subject} there")
        if results["image_size"] != self.image_size:
            found.append(f"{results['image_size']} pixels here, {self.image_size} there")
        shorter_side = results.get("shorter_side", results["image_size"])
        if shorter_side / results["image_size"] != self.test_scale:
            found.append(
                f"shorter side {shorter_side} pixels here, "
                f"{round(self.test_scale * results['image_size'])} there"
            )
        # Results without this key are from before the test had the authors' filter.
        if (resampling := results.get("resampling", "bilinear")) != self.resampling:
            found.append(f"{resampling} resizing here, {self.resampling} there")
        if results["mask"] != self.mask:
            found.append(f"{results['mask']} holes here, {self.mask} there")
        if self.count is not None and results["count"] != self.count:
            found.append(f"{results['count']:,} test photographs here, {self.count:,} there")
        return found

    def figures(self, method: str | None) -> tuple[str, ...] | None:
        """The paper's figures of a method or baseline, in the order of `metrics`; None without."""
        for _, name, values in self.rows:
            if name is not None and name == method:
                return values
        return None


MUSICAL_METRICS = ("authors/ssim", "authors/psnr", "authors/l1_percent")
"""The columns of the MUSICAL paper's tables."""


MUSICAL_LABELS = {
    "context_encoder": "CE",
    "glc": "GLC",
    "shift_net": "SN",
    "musical": "Our Method",
}
"""Method -> its row in the MUSICAL paper's tables, in their order."""

FIGURE_ORDER = tuple(name for name in MUSICAL_LABELS if name != "musical")
"""The paper's Figures 3 to 5, between the input and "Ours"."""


def _musical(number: int, dataset: str, subject: str, count: int, **rows: tuple[str, ...]):
    return PublishedTable(
        source=f"Wang et al., IJCAI 2019, Table {number}",
        dataset=dataset,
        subject=subject,
        image_size=256,
        mask="center",
        count=count,
        metrics=MUSICAL_METRICS,
        rows=tuple((label, name, rows[name]) for name, label in MUSICAL_LABELS.items()),
        notes=("The paper's figures of CE are of 128 × 128 pixels, all its code takes.",),
    )


MUSICAL_TABLES = (
    _musical(
        1,
        "paris_streetview",
        "Paris StreetView",
        100,
        context_encoder=("0.7879", "22.87", "2.943"),
        glc=("0.7925", "23.01", "2.771"),
        shift_net=("0.8292", "23.85", "2.482"),
        musical=("0.8428", "24.42", "2.264"),
    ),
    _musical(
        2,
        "places_canyon",
        "Places, canyon",
        100,
        context_encoder=("0.7794", "22.30", "3.157"),
        glc=("0.7886", "20.74", "3.551"),
        shift_net=("0.7944", "21.14", "3.360"),
        musical=("0.8025", "21.84", "3.063"),
    ),
    _musical(
        3,
        "celeba",
        "CelebA",
        19_962,
        context_encoder=("0.8631", "24.82", "2.208"),
        glc=("0.8776", "24.02", "2.360"),
        shift_net=("0.8796", "25.13", "1.958"),
        musical=("0.9008", "26.64", "1.629"),
    ),
)
"""Wang et al., *MUSICAL*, IJCAI 2019, Section 4.2."""

DEEPFILL_TABLE = PublishedTable(
    source="Yu et al., CVPR 2018, Table 1",
    dataset="places2",
    subject="Places2",
    image_size=256,
    mask="box",
    count=None,
    metrics=("deepfill/l1_percent", "deepfill/l2_percent", "deepfill/psnr", "deepfill/tv_percent"),
    rows=(
        ("PatchMatch", "patchmatch", ("16.1", "3.9", "16.62", "25.0")),
        ("Baseline model", None, ("9.4", "2.4", "18.15", "25.7")),
        ("Our method", "deepfill_v1", ("8.6", "2.1", "18.91", "25.3")),
    ),
    notes=("The paper defines none of its four metrics; protocol deepfill is a reading of them.",),
)
"""Yu et al., *Generative Image Inpainting with Contextual Attention*."""


def musical_table(dataset: str) -> PublishedTable | None:
    """The paper's table of a dataset, None where it has none."""
    return next((table for table in MUSICAL_TABLES if table.dataset == dataset), None)
