"""What an exported file says about itself."""

import hashlib
from pathlib import Path
from typing import Any

from musical_tf.contract import PREFIX, STRATEGIES
from musical_tf.run_directory import RunDirectory

UNKNOWN = "unknown"
"""What the metadata says of a generator's dataset when there is no recipe beside it."""

DEFAULT_TRAINING_SIZE = 256
"""Side in pixels that is stated when there is no recipe: the one all the papers train at."""

WEIGHT_LICENCES = {"celeba": "CelebA: non-commercial research"}
"""Licence of the weights by dataset, where the data's own terms bind what is made of it."""

OTHER_WEIGHT_LICENCE = "as its training data"


def describe(
    run: str | Path, inpaint: Any, precision: str = "float32", strategy: str | None = None
) -> dict[str, str]:
    """Collects the file's metadata, all but the measured parity.

    Args:
        run: Run directory, `.keras` file, or the name of a model that is part of the package.
        inpaint: The `InpaintingFunction` made from it.
        precision: Of the exported weights.
        strategy: How the file asks to be shown a photograph, one of `STRATEGIES`. By default what
            the card of a model of the package says, else the file asks for nothing.

    Returns:
        The entries of the contract, all strings, without `PREFIX`.

    Raises:
        ValueError: If `recipe.json` cannot be read or holds no valid image size, or the strategy is
            unknown.
    """
    import musical_tf
    from musical_tf import methods, named_models

    weights = methods.generator_file(run)
    recipe, card = {}, {}
    if named_models.is_name(run):
        card = named_models.card(run)
        recipe = card["recipe"]
    elif (folder := RunDirectory(run)).is_run:
        recipe = folder.recipe()
    dataset = str(recipe.get("dataset", UNKNOWN))
    training_size = recipe.get("image_size", DEFAULT_TRAINING_SIZE)
    if not isinstance(training_size, int) or training_size < 1:
        raise ValueError(
            f"{run}/recipe.json: image_size must be a positive integer, got {training_size!r}"
        )
    if strategy is None:
        strategy = card.get("strategy")
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    generator = inpaint.generator
    bound = getattr(generator.config, "attention_max_scores", None)
    factor = getattr(generator.config, "attention_factor", None)
    ablation = recipe.get("ablation")
    return {
        "contract": inpaint.contract,
        "method": str(generator.method),
        "preset": str(generator.preset),
        "training_size": str(training_size),
        "size_multiple": str(generator.size_multiple),
        "io": inpaint.io,
        "layout": inpaint.layout,
        "value_range": inpaint.value_range,
        "mask_polarity": inpaint.mask_polarity,
        "dataset": dataset,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "project_version": musical_tf.__version__,
        "weights_licence": card.get("licence", WEIGHT_LICENCES.get(dataset, OTHER_WEIGHT_LICENCE)),
        "precision": precision,
        **({} if bound is None else {"attention_max_scores": str(bound)}),
        **({} if factor is None else {"attention_factor": str(factor)}),
        **({} if ablation is None else {"ablation": str(ablation)}),
        **({} if strategy is None else {"strategy": strategy}),
        **{key: card[key] for key in ("name", "data") if key in card},
    }


def set_metadata(model: Any, description: dict[str, str]) -> None:
    """Writes `description` into the model, and what its inputs mean into their documentation."""
    import onnx

    properties = {PREFIX + key: value for key, value in description.items()}
    onnx.helper.set_model_props(model, properties)
    model.producer_name = "musical_tf"
    model.producer_version = description["project_version"]
    model.doc_string = f"Image inpainting, method {description['method']}."
    value_range = description["value_range"]
    for value in model.graph.input:
        value.doc_string = (
            description["mask_polarity"] if value.name == "mask" else f"RGB in {value_range}"
        )
    documentation = {
        "inpainted": f"RGB in {value_range}; known pixels as in image",
        "source": "row and column that a pixel was copied from; -1 where the network painted",
        "predicted": f"RGB in {value_range}; the network's own fill",
    }
    for value in model.graph.output:
        value.doc_string = documentation[value.name]
