"""Paris StreetView; section 4.1 of the paper."""

from pathlib import Path

from .listing import PAPER_RATIO, DatasetSpec, Listing, find_in_folders

_PARIS_FOLDERS = {
    "train": ("train", "paris_train_original"),
    "val": ("val",),
    "test": ("test", "paris_eval_gt", "paris_eval/paris_eval_gt"),
}


def _find(data_dir: Path, split: str) -> Listing:
    return find_in_folders(data_dir, split, _PARIS_FOLDERS)


DATASET = DatasetSpec(
    name="paris_streetview",
    data_dir="data/paris_streetview",
    shorter_side_ratio=PAPER_RATIO,
    crop="random",
    flip=True,
    lambda_adversarial=0.3,
    instructions="""\
Paris StreetView is not public: ask the authors of Context Encoders for it,
https://github.com/pathak22/context-encoder.
Expected layout (14,900 photographs to train, 100 to test):
  DIR/train/*.png   or   DIR/paris_train_original/*.JPG
  DIR/test/*.png    or   DIR/paris_eval_gt/*.png   or   DIR/paris_eval/paris_eval_gt/*.png""",
    find=_find,
)
