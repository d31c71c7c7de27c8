"""The adversarial game, `L_adv` of Eq. (7): binary cross-entropy on logits, non-saturating."""

from keras import ops

from musical_tf.conventions import Tensor


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy of a discriminator: `(bce(real, 1) + bce(fake, 0)) / 2`.

    Written with softplus, `bce(z, 1) = softplus(-z)` and `bce(z, 0) = softplus(z)`, which has no
    logarithm of zero.

    Args:
        real_logits, fake_logits: Float tensors of any shape, scores of photographs and of
            generated images.

    Returns:
        Float32 scalar; `log 2` for a discriminator that cannot tell.
    """
    real = ops.mean(ops.softplus(-ops.cast(real_logits, "float32")))
    fake = ops.mean(ops.softplus(ops.cast(fake_logits, "float32")))
    return 0.5 * (real + fake)


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of a generator: `bce(fake, 1)`, a float32 scalar."""
    return ops.mean(ops.softplus(-ops.cast(fake_logits, "float32")))
