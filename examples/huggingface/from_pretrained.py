"""Runs `model.onnx` of a Hugging Face repository, or of a local folder of the same layout."""

import os
from pathlib import Path

from huggingface_hub import ModelHubMixin, hf_hub_download

import musical_tf


class Inpainter(ModelHubMixin):
    """Fills holes: `Inpainter.from_pretrained("USER/REPOSITORY")(image, mask)`.

    Args:
        model: An exported file.
    """

    def __init__(self, model: str | os.PathLike[str]):
        self.model = Path(model)

    def __call__(self, image, mask, **options):
        """Arguments and result are those of `musical_tf.inpaint`."""
        return musical_tf.inpaint(image, mask, model=self.model, **options)

    @classmethod
    def _from_pretrained(cls, *, model_id, **options):
        if Path(model_id).is_dir():
            return cls(Path(model_id) / "model.onnx")
        wanted = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        options = {name: value for name, value in options.items() if name in wanted}
        return cls(hf_hub_download(model_id, "model.onnx", **options))
