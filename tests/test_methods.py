"""What every method has to hold, see `method_contract`; what is its own is in its own test."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from musical_tf import methods

from . import make_goldens, method_contract
from .method_contract import batch_of, inputs_of


@dataclasses.dataclass(frozen=True)
class Case:
    """A method, made small.

    Attributes:
        fields: Of its `Config`.
        sizes: Height, width and batch that a call takes.
        wrong: Height and width that it refuses; None if it takes any.
        size: Side of the images that it is trained on.
        batch: Images of a batch.
        generator: Makes one whose answers can be told apart; None for `fields` and random weights.
        exported: Sizes that the exported file is tried at.
        nodes: Operators that the exported graph must not have.
        loops: Loops of the exported graph; None for any number.
        weightless: Fields that leave the terms `left`, and no discriminator.
    """

    method: str
    fields: dict[str, Any]
    sizes: tuple[tuple[int, int, int], ...]
    wrong: tuple[int, int] | None
    size: int = 64
    batch: int = 2
    generator: Callable | None = None
    exported: tuple[tuple[int, int], ...] = ((90, 117), (16, 16))
    nodes: tuple[str, ...] = ("Scan", "GatherElements")
    loops: int | None = 0
    weightless: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"lambda_adversarial": 0.0}
    )
    left: tuple[str, ...] = ("l1",)

    def random_generator(self):
        if self.generator is not None:
            return self.generator()
        return method_contract.random_generator(self.method, **self.fields)

    def config(self, **more):
        module = methods.get(self.method)
        return module.Config.from_preset("paper", **self.fields, **more)


CONTEXT = {"width": 6, "bottleneck": 16, "discriminator_width": 2}
CASES = {
    "csa": Case(
        "csa",
        {"width": 4, "width_limit": 8, "levels": 4, "discriminator_width": 2},
        ((64, 64, 1), (24, 40, 3), (8, 16, 1)),
        (24, 44),
        generator=lambda: make_goldens.narrow_generator("csa"),
        nodes=("Scan",),
        loops=1,
        weightless={"lambda_consistency": 0.0, "lambda_adversarial": 0.0},
        left=("l1", "rough_l1"),
    ),
    "glc": Case(
        "glc",
        {"width": 4, "discriminator_width": 2, "discriminator_features": 6},
        ((16, 44, 1), (36, 16, 3)),
        (32, 34),
        batch=4,
        nodes=("SpaceToBatch",),
        weightless={"alpha": 0.0},
        left=("mse",),
    ),
    "context_encoder": Case(
        "context_encoder", CONTEXT, ((16, 48, 1), (33, 17, 3)), None, batch=3, left=("l2",)
    ),
    "context_encoder, any": Case(
        "context_encoder",
        {**CONTEXT, "region": "any"},
        ((16, 48, 1), (33, 17, 3)),
        None,
        batch=3,
        nodes=("Einsum", "GatherElements"),
        left=("l2",),
    ),
    "shift_net": Case(
        "shift_net",
        {"width": 4, "levels": 4, "discriminator_width": 4},
        ((16, 48, 1), (32, 16, 3)),
        (32, 40),
        weightless={"lambda_adversarial": 0.0, "lambda_guidance": 0.0},
    ),
    "deepfill_v1": Case(
        "deepfill_v1",
        {"width": 4, "critic_width": 2, "critic_steps": 1},
        ((8, 40, 1), (64, 32, 3)),
        (32, 36),
        size=32,
        generator=make_goldens.deepfill_generator,
        exported=((40, 57), (16, 16), (9, 130)),  # padding wider than the map, too
        nodes=("Scan",),
        loops=None,
        weightless={"lambda_adversarial": 0.0, "coarse_factor": 0.0, "lambda_known": 0.0},
        left=("hole",),
    ),
    "musical": Case(
        "musical",
        {"width": 8, "inner_levels": 2},
        ((16, 48, 1), (64, 32, 3)),
        (32, 40),
        generator=lambda: make_goldens.narrow_generator("musical_paper"),
        weightless=dict.fromkeys(
            [f"lambda_{name}" for name in ("perceptual", "style", "tv", "adversarial")], 0.0
        ),
    ),
}
TRAINED = [name for name in CASES if name != "musical"]  # test_trainer and test_fit train it
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
trained = pytest.mark.parametrize("case", [CASES[name] for name in TRAINED], ids=TRAINED)


def test_every_method_is_a_case():
    assert {case.method for case in CASES.values()} == set(methods.names())


@cases
def test_shapes(case):
    for preset in methods.get(case.method).PRESETS:
        generator = method_contract.check_shapes(case.method, preset, case.sizes, **case.fields)
    if case.wrong:
        height, width = case.wrong
        multiple = generator.size_multiple
        message = f"must be multiples of {multiple}, got {height} x {width}"
        with pytest.raises(ValueError, match=message):
            generator(inputs_of(batch_of(height, width)))


@cases
def test_configuration(case):
    config_class = methods.get(case.method).Config
    config = config_class.from_preset("lite", **case.fields)
    assert config_class(**dataclasses.asdict(config)) == config
    assert config_class() == config_class.from_preset("paper")
    with pytest.raises(ValueError, match=r"Unknown option\(s\) \['widht'\], expected .*'width'"):
        config_class.from_preset("paper", widht=3)
    with pytest.raises(ValueError, match="Unknown preset 'tiny'"):
        config_class.from_preset("tiny")
    with pytest.raises(ValueError, match=r"preset must be one of \['paper'"):
        config_class(preset="tiny")
    for name in {"width", *(field for field in vars(config) if field.startswith("lambda_"))}:
        with pytest.raises(ValueError, match=f"{name} must be >= "):
            config_class(**{name: -1})


@cases
def test_saved_and_loaded_it_is_the_same(case, tmp_path):
    method_contract.check_saved_and_loaded(
        case.method, tmp_path, 32, "mixed_float16", **case.fields
    )


@cases
def test_hole_is_ignored_and_known_pixels_stay(case):
    generator = case.random_generator()
    method_contract.check_what_lies_under_the_hole_does_not_matter(generator, 32, 48)
    method_contract.check_samples_have_their_own_holes(generator, 48)


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "csa"])  # see test_csa
def test_every_variable_gets_a_gradient(name):
    case = CASES[name]
    method_contract.check_gradients(case.method, case.config(), case.size, case.batch)


@cases
def test_weightless_terms_are_not_computed(case):
    module, config = methods.get(case.method), case.config(**case.weightless)
    generator, discriminators, objective = method_contract.build(case.method, config, case.size)
    assert discriminators == {}
    assert getattr(objective, "vgg", None) is None
    data = batch_of(case.size, batch=case.batch)
    outputs = objective.outputs(generator, data)
    assert tuple(objective.generator_terms(data, outputs, {})) == case.left
    if case.method in ("csa", "deepfill_v1"):
        assert objective.discriminator_terms(data, outputs, {}) == {}
    if case.method != "glc":  # its error has no weight to set to 0
        nothing = {name: 0.0 for name in vars(config) if name.startswith("lambda_")}
        with pytest.raises(ValueError, match="nothing to train for"):
            module.build_objective(dataclasses.replace(config, **nothing))


@trained
@pytest.mark.usefixtures("eager")
def test_a_mixed_precision_step(case):
    together = {"completion_steps": 0, "discriminator_only_steps": 0, "alpha": 0.5}
    config = case.config(**(together if case.method == "glc" else {}))
    method_contract.check_mixed_precision_step(case.method, config, case.size, case.batch)


@trained
def test_export(case, tmp_path):
    generator = case.random_generator()
    model = method_contract.check_export(generator, tmp_path, case.exported)
    nodes = [node.op_type for node in model.graph.node]
    assert not set(case.nodes) & set(nodes)
    assert case.loops is None or nodes.count("Loop") == case.loops
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["musical_tf.method"] == case.method
    assert metadata["musical_tf.size_multiple"] == str(generator.size_multiple)


@pytest.mark.parametrize("name", make_goldens.TAPS)
def test_golden(name):
    stored, computed = np.load(make_goldens.FOLDER / f"{name}.npz"), make_goldens.compute(name)
    assert set(stored) == set(computed)
    for tap, value in computed.items():
        np.testing.assert_allclose(value, stored[tap], atol=2e-4, err_msg=tap)
    assert np.std(stored["result"]) > 0.05
    assert np.mean(np.abs(stored["result"]) == 1) < 0.5  # clipping would hide differences
