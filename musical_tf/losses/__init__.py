"""The terms of the MUSICAL objective (Eq. 7), unweighted; every one is a float32 scalar."""

from musical_tf.losses.adversarial import discriminator_loss, generator_adversarial_loss
from musical_tf.losses.perceptual import gram_matrix, perceptual_loss, style_loss
from musical_tf.losses.reconstruction import (
    hole_l1_loss,
    l1_loss,
    l2_loss,
    ssim_loss,
    total_variation_loss,
)
from musical_tf.losses.vgg16 import VGG16Features

__all__ = [
    "VGG16Features",
    "discriminator_loss",
    "generator_adversarial_loss",
    "gram_matrix",
    "hole_l1_loss",
    "l1_loss",
    "l2_loss",
    "perceptual_loss",
    "ssim_loss",
    "style_loss",
    "total_variation_loss",
]
