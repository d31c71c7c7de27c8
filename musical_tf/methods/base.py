"""What every method shares: the rules of its configuration, its generator and its objective."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import keras
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_maps import AttentionMap
from musical_tf.losses.adversarial import discriminator_loss


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """Architecture and objective of a method; a method's `Config` adds its fields.

    Attributes:
        preset: The preset it started from, for the record.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    """The presets by name, as the fields that differ from the paper's."""

    LEAST: ClassVar[Mapping[str, float]] = {}
    """The least value of a field; fields that begin with `lambda_` are at least 0."""

    preset: str = "paper"

    def __post_init__(self):
        if self.preset not in self.PRESETS:
            raise ValueError(f"preset must be one of {list(self.PRESETS)}, got {self.preset!r}")
        fields = vars(self)
        least = dict(self.LEAST) | {name: 0 for name in fields if name.startswith("lambda_")}
        for name, smallest in least.items():
            value = fields[name]
            if value is not None and not value >= smallest:  # NaN is not
                raise ValueError(f"{name} must be >= {smallest}, got {value!r}")

    @classmethod
    def from_preset(cls, preset: str = "paper", **overrides) -> Self:
        """The configuration of a preset with some fields replaced.

        Raises:
            ValueError: On an unknown preset or field; the message lists the valid ones.
        """
        if preset not in cls.PRESETS:
            raise ValueError(f"Unknown preset {preset!r}, expected one of {list(cls.PRESETS)}")
        fields = {field.name for field in dataclasses.fields(cls)} - {"preset"}
        unknown = sorted(set(overrides) - fields)
        if unknown:
            raise ValueError(f"Unknown option(s) {unknown}, expected some of {sorted(fields)}")
        return cls(**{"preset": preset, **cls.PRESETS[preset], **overrides})


class MethodGenerator:
    """Mixin of a `keras.Model` that fills holes: its configuration, stored in its file.

    Attributes:
        method: Name of the method's module.
        config: The method's `Config`.
        policy: Keras dtype policy of the layers.
    """

    method: ClassVar[str]
    config_class: ClassVar[type[MethodConfig]]
    config: Any
    policy: Any
    name: str

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        raise NotImplementedError

    @classmethod
    def read_config(cls, config: MethodConfig | Mapping) -> Any:
        """The configuration from itself or from the dict of its fields."""
        return config if isinstance(config, MethodConfig) else cls.config_class(**config)

    @property
    def preset(self) -> str:
        """The preset the configuration started from."""
        return self.config.preset

    def check_size(self, image: Tensor) -> None:
        """Raises `ValueError` on a known side that is no multiple of `size_multiple`."""
        height, width = image.shape[1:3]
        if any(side is not None and side % self.size_multiple for side in (height, width)):
            raise ValueError(
                f"height and width must be multiples of {self.size_multiple}, got "
                f"{height} x {width}; musical_tf.inference.InpaintingFunction takes any size"
            )

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """Which known positions each position of the hole was filled from.

        Args:
            inputs: `[image, hole]` as for a call.

        Returns:
            Patch size, for instance `"3x3"` -> `AttentionMap` of the attention's positions.

        Raises:
            ValueError: If the method, or its configuration, has no attention.
        """
        raise ValueError(f"{self.method} has no attention: it copies nothing and draws every pixel")

    def get_config(self) -> dict:
        return {
            "config": dataclasses.asdict(self.config),
            "dtype": keras.dtype_policies.serialize(self.policy),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> Self:
        return cls(**{**config, "dtype": keras.dtype_policies.deserialize(config["dtype"])})


class FunctionalGenerator(MethodGenerator, keras.Model):
    """A generator that is one graph of layers from image and hole.

    Args:
        config: The method's `Config`, or the dict of its fields.
        dtype: Keras dtype policy of the layers; None the global one.
        name: The model's name; the method's by default.

    Call arguments:
        inputs: `[image, hole]`, image `(B, H, W, 3)` in [-1, 1], hole `(B, H, W, 1)`, 1 = missing.
            Known H and W must be multiples of `size_multiple`.

    Returns:
        `(B, H, W, 3)` float32 in [-1, 1], the raw prediction.
    """

    def __init__(self, config: MethodConfig | Mapping, dtype=None, name: str | None = None):
        config = self.read_config(config)
        policy = keras.dtype_policies.get(dtype)
        image = keras.Input((None, None, 3), name="image")
        hole = keras.Input((None, None, 1), name="hole")
        outputs, taps = self.connect(image, hole, config, policy)
        super().__init__(inputs=[image, hole], outputs=outputs, name=name or self.method)
        self.config = config
        self.policy = policy
        if taps:
            inner = keras.Model([image, hole], taps)
            # Behind a function, or Keras would count and save the same layers twice.
            self._tapped = functools.partial(inner)

    @staticmethod
    def connect(image, hole, config, policy) -> tuple[Any, dict[str, Any]]:
        """Connects the layers.

        Returns what a call returns, and the features that `tapped` returns by name.
        """
        raise NotImplementedError

    def call(self, inputs, training=None, mask=None):
        self.check_size(inputs[0])
        return super().call(inputs, training=training, mask=mask)

    def tapped(self, inputs, training: bool) -> dict[str, Tensor]:
        """The features that `connect` named, for `[image, hole]`."""
        inputs = [ops.convert_to_tensor(each) for each in inputs]
        self.check_size(inputs[0])
        return self._tapped(inputs, training=training)


class Objective:
    """What the networks of a method are trained for, as named terms.

    A term whose weight is 0 is not in `generator_weights` and need not be computed.

    Args:
        weights: Term name -> weight.

    Attributes:
        generator_weights: Term name -> weight above 0.
        discriminator_steps: Updates of the discriminators for each update of the generator.

    Raises:
        ValueError: If every weight is 0.
    """

    discriminator_steps = 1

    def __init__(self, weights: Mapping[str, float]):
        self.generator_weights = {name: weight for name, weight in weights.items() if weight > 0}
        if not self.generator_weights:
            raise ValueError(
                "nothing to train for: the weight of every term is 0; set the lambda_ option of at "
                f"least one: {', '.join(weights)}"
            )

    def phase(self, step: Tensor) -> dict[str, Tensor]:
        """Which sides are updated after `step` finished steps.

        `generator` and `discriminators`, scalar bool tensors; a side that is not named is updated
        always.
        """
        return {}

    def phase_weights(self, step: Tensor) -> Mapping[str, Any]:
        """`generator_weights` after `step` finished steps."""
        return self.generator_weights

    def outputs(self, generator: keras.Model, batch: Mapping[str, Tensor]) -> Any:
        """What the terms compare, computed once a step for both sides.

        By default the raw prediction; arguments as of `generator_terms`.
        """
        return generator([batch["image"], batch["hole"]], training=True)

    def terms(
        self,
        batch: Mapping[str, Tensor],
        prediction: Any,
        discriminators: Mapping[str, keras.Model],
    ) -> Mapping[str, Callable[[], Tensor]]:
        """A function for every term of the generator's loss; arguments as of `generator_terms`."""
        raise NotImplementedError

    def generator_terms(
        self,
        batch: Mapping[str, Tensor],
        prediction: Any,
        discriminators: Mapping[str, keras.Model],
    ) -> dict[str, Tensor]:
        """The unweighted terms of the generator's loss.

        Args:
            batch: `image` `(B, H, W, 3)` in [-1, 1] and `hole` `(B, H, W, 1)`.
            prediction: What `outputs` gave.
            discriminators: What the method's `build_discriminators` gave.

        Returns:
            Term name -> float32 scalar, the keys of `generator_weights`.
        """
        terms = self.terms(batch, prediction, discriminators)
        return {name: terms[name]() for name in self.generator_weights}

    def discriminator_terms(
        self,
        batch: Mapping[str, Tensor],
        prediction: Any,
        discriminators: Mapping[str, keras.Model],
    ) -> dict[str, Tensor]:
        """The terms of the discriminators' loss; no gradient reaches the generator from them.

        Arguments and result: as of `generator_terms`; nothing without discriminators.
        """
        return {}


def judge(
    discriminators: Mapping[str, keras.Model], name: str, image: Tensor, prediction: Tensor
) -> dict[str, Tensor]:
    """The loss of one discriminator as `"discriminator"`; nothing without discriminators."""
    if not discriminators:
        return {}
    real = discriminators[name](image, training=True)
    fake = discriminators[name](ops.stop_gradient(prediction), training=True)
    return {"discriminator": discriminator_loss(real, fake)}
