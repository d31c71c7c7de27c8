"""The relativistic average game with squares: is the real more real than the average fake?"""

from keras import ops

from musical_tf.conventions import Tensor


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Relativistic average least-squares loss of a discriminator.

    `(mean((real - mean(fake) - 1)^2) + mean((fake - mean(real) + 1)^2)) / 2`, the means being over
    every score of the batch.

    Args:
        real_logits, fake_logits: Float tensors of any shape, scores of photographs and of
            generated images.

    Returns:
        Float32 scalar; 1 for a discriminator that gives everything one score, 0 for one that scores
        every photograph 1 above every generated image.

    Reference: Jolicoeur-Martineau, "The Relativistic Discriminator: a Key Element Missing from
    Standard GAN", ICLR 2019.
    """
    real, fake = ops.cast(real_logits, "float32"), ops.cast(fake_logits, "float32")
    above = ops.mean(ops.square(real - ops.mean(fake) - 1.0))
    below = ops.mean(ops.square(fake - ops.mean(real) + 1.0))
    return 0.5 * (above + below)


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The same with photographs and generated images in each other's place.

    0 where every generated image scores 1 above every photograph.
    """
    return relativistic_discriminator_loss(fake_logits, real_logits)
