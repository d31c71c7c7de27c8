"""The Wasserstein game with a gradient penalty, the penalty only where pixels are missing."""

from collections.abc import Callable

from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.losses.gradient import input_gradient

NORM_FLOOR = 1e-12
"""What a gradient's norm is taken to be at least: the gradient of sqrt at 0 is infinite."""


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """What a critic minimizes without its penalty: `mean(fake) - mean(real)`, float32.

    Its negative estimates the Wasserstein distance. The scores are `(B, 1)` float.
    """
    fake = ops.mean(ops.cast(fake_scores, "float32"))
    return fake - ops.mean(ops.cast(real_scores, "float32"))


def generator_critic_loss(fake_scores: Tensor) -> Tensor:
    """What a generator minimizes: `-mean(fake)`, float32."""
    return -ops.mean(ops.cast(fake_scores, "float32"))


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    fraction: Tensor,
    hole: Tensor | None = None,
) -> Tensor:
    """Keeps a critic's slope at 1: `mean((|grad critic(x) * hole| - 1)^2)`, unweighted.

    x lies between photograph and fake, `real + fraction (fake - real)`; the norm is the Euclidean
    one of a sample. Outside the hole photograph and composite are the same, so only the slope
    inside says how the critic tells them apart.

    Args:
        critic: `(B, H, W, 3)` -> scores, each sample by itself.
        real: `(B, H, W, 3)` float, photographs.
        fake: `(B, H, W, 3)` float, generated images.
        fraction: `(B, 1, 1, 1)` float in [0, 1], uniformly random.
        hole: `(B, H, W, 1)` float, 1 = missing; None for the whole image. A sample without a hole
            has slope 0 and no gradient.

    Returns:
        Float32 scalar.

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NIPS 2017; Yu et al.,
    "Generative Image Inpainting with Contextual Attention", CVPR 2018, Section 3.
    """
    between = real + fraction * (fake - real)
    _, slope = input_gradient(critic, between)
    slope = ops.cast(slope, "float32")
    if hole is not None:
        slope = slope * ops.cast(hole, "float32")
    energy = ops.sum(ops.square(slope), axis=(1, 2, 3))
    norm = ops.sqrt(ops.maximum(energy, NORM_FLOOR**2))
    return ops.mean(ops.square(norm - 1.0))
