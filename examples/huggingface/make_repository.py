"""Writes a model as a repository for the Hugging Face Hub: make_repository.py NAME FOLDER.

A `.keras` file is an archive of the three files that the Hub's Keras models, and the presets of
KerasHub, consist of: `config.json`, `metadata.json` and `model.weights.h5`.
"""

import shutil
import sys
import zipfile
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from musical_tf import named_models
from serving.named_models import find

HERE = Path(__file__).resolve().parent
CARD = """---
{data}
---
# musical {name}

Removes objects from photographs. MUSICAL (Wang et al., IJCAI 2019), trained on {photographs}.

Licence of the weights: {licence}.

```
from from_pretrained import Inpainter

inpainter = Inpainter.from_pretrained("USER/REPOSITORY")  # or a local folder
inpainter("photo.jpg", "mask.png").save("filled.png")  # model.onnx, without TensorFlow
```

```
import musical_tf

generator = musical_tf.load("FOLDER")  # the Keras model, to train on
```
"""


def make_repository(name: str, folder: Path) -> None:
    """Writes the repository of a model of the package into a new folder."""
    card = named_models.card(name)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(named_models.file(name)) as archive:
        archive.extractall(folder)
    shutil.copy(find(name), folder / "model.onnx")
    shutil.copy(HERE / "from_pretrained.py", folder)
    is_open = card["licence"] == "Apache-2.0"
    if is_open:
        shutil.copy(named_models.FOLDER / "CREDITS.tsv", folder)
    data = ModelCardData(
        license="apache-2.0" if is_open else "other",
        license_name=None if is_open else card["licence"],
        library_name="keras",
        pipeline_tag="image-to-image",
        tags=["inpainting", "object-removal", "onnx", "keras"],
        model_name=f"musical {name}",
    )
    text = CARD.format(
        data=data.to_yaml(), name=name, photographs=card["data"], licence=card["licence"]
    )
    ModelCard(text).save(folder / "README.md")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_repository(sys.argv[1], Path(sys.argv[2]))
