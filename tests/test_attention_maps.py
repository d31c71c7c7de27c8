"""Attention maps: weights times features are what the layer puts into the hole."""

import numpy as np
import pytest

from musical_tf import methods
from musical_tf.conventions import downsample_hole
from musical_tf.layers import MultiScaleAttention, StridedContextualAttention, attention_maps
from musical_tf.layers import coherent_attention as coherent
from musical_tf.layers.attention_maps import attention_weights, pasted_features
from musical_tf.layers.query_window import Region

from .method_contract import batch_of, inputs_of, random_generator

METHODS = {
    "musical": {"width": 4, "inner_levels": 1},
    "deepfill_v1": {"width": 4},
    "csa": {"width": 4, "width_limit": 8, "levels": 4},
    "shift_net": {"width": 4, "levels": 5},
}
"""What makes a generator with an attention small."""


def features_and_hole(height=6, width=9, channels=5, seed=0):
    """Three samples: two holes, one at the border, and one that leaves nothing known."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(3, height, width, channels)).astype("float32")
    hole = np.zeros((3, height, width, 1), "float32")
    hole[0, 1:3, 1:4] = hole[0, height - 1, width - 1] = 1
    hole[1, :2, 2:] = 1
    hole[2] = 1
    return features, hole


def assert_fills(attention_map, pasted, attended):
    """The map's weights times what they multiply are what was attended, at every third position."""
    assert attention_map.filled.any()
    for sample, row, column in np.argwhere(attention_map.filled)[::3]:
        weights = attention_map.weights(sample, row, column)
        filling = np.einsum("yx,yxc->c", weights, np.asarray(pasted)[sample])
        np.testing.assert_allclose(filling, attended[sample, row, column], atol=2e-5)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("propagation_size", [1, 3])
def test_weights_times_features_are_the_references_filling(variant, propagation_size):
    features, hole = features_and_hole()
    layer = MultiScaleAttention(
        (1, 3, 5), propagation_size, 3.0, implementation="reference", variant=variant
    )
    maps = layer.attention_maps(features, hole, stride=4)
    pasted = pasted_features(features, hole, variant)
    assert list(maps) == ["1x1", "3x3", "5x5"]
    for scale, attended in zip(maps.values(), layer.attend(features, hole), strict=True):
        assert scale.stride == 4
        assert scale.filled[:2].tolist() == (hole[:2, ..., 0] > 0.5).tolist()
        assert_fills(scale, pasted, np.asarray(attended))
    # The authors' code takes patches of the hole too, so it fills even where nothing is known.
    assert maps["1x1"].filled[2].all() == (variant == "official")
    assert maps["1x1"].filled[2].any() == (variant == "official")


def test_one_position_is_the_same_alone_and_in_a_rectangle():
    features, hole = features_and_hole()
    together = np.asarray(attention_weights(features, hole, Region((0, 6), (0, 9))))
    alone = np.asarray(attention_weights(features, hole, Region((1, 2), (3, 4))))
    assert together.shape == (3, 6, 9, 6, 9)
    np.testing.assert_allclose(alone[:, 0, 0], together[:, 1, 3], rtol=1e-5)
    # In the middle of the map nothing of a pasted patch is lost.
    inner = attention_weights(features[:1], hole[:1], Region((2, 3), (2, 3)), patch_size=1)
    assert np.asarray(inner).sum() == pytest.approx(1.0, abs=1e-5)
    for rows in ((2, 2), (-1, 2), (3, 7)):
        with pytest.raises(ValueError, match=r"inside the map \(6, 9\)"):
            attention_weights(features, hole, Region(rows, (0, 1)))


def test_strongest_are_known_sorted_and_the_largest_weights(monkeypatch):
    features, hole = features_and_hole(seed=1)
    scale = MultiScaleAttention((3,)).attention_maps(features, hole)["3x3"]
    found = scale.strongest(4)
    for sample, row, column in np.argwhere(scale.filled):
        weights = scale.weights(sample, row, column)
        shares = np.where(scale.missing[sample], 0.0, weights / weights.sum())
        at = (sample, row, column)
        np.testing.assert_allclose(found.weights[at], np.sort(shares.ravel())[::-1][:4], rtol=1e-5)
        taken = shares[tuple(found.positions[at].T)]
        np.testing.assert_allclose(taken, found.weights[at], rtol=1e-5)
        assert found.known_share[at] == pytest.approx(shares.sum(), rel=1e-5)
        assert 1 <= found.spread[at] <= (shares > 0).sum() + 1e-3
    given = [scale.weights(0, *place) for place in np.argwhere(scale.filled[0])]
    given = np.mean([each / each.sum() for each in given], axis=0) * ~scale.missing[0]
    np.testing.assert_allclose(found.usage[0], given, atol=1e-6)
    assert scale.sources.tolist() == found.positions[..., 0, :].tolist()
    empty = ~scale.filled
    assert empty[2].all()
    assert (found.positions[empty] == -1).all()
    assert (found.weights[empty] == 0).all()
    # Next to the hole a pasted patch reaches into it.
    assert (found.known_share[scale.filled] < 1 - 1e-4).any()

    chosen = np.argwhere(scale.filled[0])[::-1]
    one_by_one = [scale.weights(0, *place) for place in chosen]
    np.testing.assert_allclose(scale.weights_of_many(0, chosen), one_by_one, atol=1e-6)

    monkeypatch.setattr(attention_maps, "BAND_SCORES", 1)
    np.testing.assert_allclose(scale.weights_of_many(0, chosen), one_by_one, atol=1e-6)
    again = MultiScaleAttention((3,)).attention_maps(features, hole)["3x3"].strongest(4)
    assert again.positions.tolist() == found.positions.tolist()
    np.testing.assert_allclose(again.weights, found.weights, rtol=1e-5)
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        scale.strongest(0)
    with pytest.raises(ValueError, match="row 5, column 0: expected a filled position"):
        scale.weights(0, 5, 0)


def test_a_copy_is_one_source():
    """A hole position that equals one known position, and is orthogonal to all others."""
    features = np.eye(12, dtype="float32").reshape(1, 3, 4, 12)
    features[0, 1, 1] = features[0, 2, 3]
    hole = np.zeros((1, 3, 4, 1), "float32")
    hole[0, 1, 1] = 1
    layer = MultiScaleAttention((1,), propagation_size=1, softmax_scale=100.0)
    scale = layer.attention_maps(features, hole)["1x1"]
    assert scale.sources[0, 1, 1].tolist() == [2, 3]
    found = scale.strongest(3)
    assert found.weights[0, 1, 1, 0] == pytest.approx(1.0)
    assert found.spread[0, 1, 1] == pytest.approx(1.0)
    assert found.known_share[0, 1, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [1, 2, 3])
def test_strided_weights_times_features_are_the_layers_filling(rate):
    features, hole = features_and_hole(6 * rate, 7 * rate)
    features[0, rate], hole[0, rate, 1:3] = features[0, 0], 1
    layer = StridedContextualAttention(rate, softmax_scale=2.0)
    (scale,) = layer.attention_maps(features, hole).values()
    assert scale.filled[:2].any(axis=(1, 2)).all()
    assert_fills(scale, features, np.asarray(layer(features, hole)))


def test_coherent_weights_times_features_are_the_layers_filling():
    features, hole = features_and_hole()
    (scale,) = coherent.attention_maps(features, hole).values()
    attended = coherent.CoherentSemanticAttention()(features, hole)
    assert_fills(scale, features, np.asarray(attended))
    assert scale.strongest(9).known_share[scale.filled] == pytest.approx(1.0, abs=1e-5)
    first = np.argwhere(scale.filled[0])[0]
    matches = np.asarray(coherent.attention_sources(features, hole))
    assert scale.sources[0][tuple(first)].tolist() == matches[0][tuple(first)].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_every_generator_with_an_attention_has_maps_of_its_hole(method):
    generator = random_generator(method, "lite", **METHODS[method])
    data = batch_of(64, 96)
    maps = generator.attention_maps([data["image"], data["hole"].numpy()])
    assert list(maps) == (["1x1", "3x3"] if method == "musical" else list(maps))
    for scale in maps.values():
        missing = np.asarray(downsample_hole(data["hole"], scale.stride))[..., 0] > 0.5
        assert scale.missing.shape == (2, 64 // scale.stride, 96 // scale.stride)
        assert scale.missing.tolist() == missing.tolist()
        assert scale.filled.any(axis=(1, 2)).all()
        found = scale.strongest(3)
        assert (found.weights[scale.filled][:, 0] > 0).all()
        rows, columns = scale.sources[scale.filled].T
        samples = np.nonzero(scale.filled)[0]
        assert not missing[samples, rows, columns].any()
    with pytest.raises(ValueError, match=r"multiples of .*, got 36 x 36"):
        generator.attention_maps(inputs_of(batch_of(36)))
    if method in ("shift_net", "csa"):
        (scale,) = maps.values()
        matches = np.asarray(generator.attention_sources(inputs_of(data)))
        first = tuple(np.argwhere(scale.filled)[0])
        assert scale.sources[first].tolist() == matches[first].tolist()
    if method == "shift_net":
        assert scale.sources.tolist() == matches.tolist()
        assert (found.weights[scale.filled] == [1, 0, 0]).all()


def test_the_whole_networks_maps_are_those_of_its_attention():
    """The features are taken in the right place: weights times them are what is merged."""
    import keras

    generator = random_generator("musical", "lite", **METHODS["musical"])
    data = batch_of(32)
    attention = generator.get_layer("attention")
    tap = keras.Model(generator.inputs, attention.input)
    features, hole = tap(inputs_of(data))
    maps = generator.attention_maps(inputs_of(data))
    for scale, attended in zip(maps.values(), attention.attend(features, hole), strict=True):
        assert_fills(scale, features, np.asarray(attended))


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("musical", {"attention": False}, "musical has no attention: .* attention=False"),
        ("csa", {"attention": False}, "csa has no attention: .* attention=False"),
        ("deepfill_v1", {"attention": False}, "no attention: .* attention=False"),
        ("shift_net", {"shift": False}, "copies nothing: its config has shift=False"),
        ("glc", {}, "glc has no attention"),
        ("context_encoder", {}, "context_encoder has no attention"),
    ],
)
def test_a_generator_without_attention_says_so(method, fields, message):
    small = METHODS.get(method, {"width": 4})
    generator = methods.create(method, "lite", **small, **fields)
    with pytest.raises(ValueError, match=message):
        generator.attention_maps(inputs_of(batch_of(64)))
    if hasattr(generator, "attention_sources"):
        with pytest.raises(ValueError, match=message):
            generator.attention_sources(inputs_of(batch_of(64)))
    assert set(METHODS) | {"glc", "context_encoder"} == set(methods.names())
