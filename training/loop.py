"""The loop around the steps of a run, and what both backends save, the same for both."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.files import whole_file

from . import checkpoints
from .callbacks import Callback


class NonFiniteError(ArithmeticError):
    """A loss term or a weight became NaN or infinite. The message names it and the step."""


class Loop:
    """Calls `update` until a run is done, and the callbacks around it; a backend defines the rest.

    Attributes:
        generator: The Keras model that is trained.
        steps_a_call: Steps that one `update` makes.
        stop_training: Set by a callback to end the run after this step.
    """

    generator: Any
    steps_a_call = 1
    stop_training = False

    @property
    def finished(self) -> int:
        """Steps done so far."""
        raise NotImplementedError

    @property
    def stopped(self) -> bool:
        """Whether the run ends now; of several processes, once all of them know."""
        return self.stop_training

    def update(self, batch: Any) -> dict[str, float]:
        """Makes `steps_a_call` steps and returns their loss terms."""
        raise NotImplementedError

    def state(self) -> checkpoints.State:
        """Returns everything that a later step depends on, in a fixed order."""
        raise NotImplementedError

    def inference_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block the generator holds its averaged weights, if it has any."""
        raise NotImplementedError

    def predict(self, image: Any, missing: np.ndarray) -> Any:
        """Returns the generator's output as it is used later: not training, averaged weights.

        From `(1, H, W, 3)` in [-1, 1] and `(1, H, W, 1)` float32, 1 = missing, to `(1, H, W, 3)`
        float32 in [-1, 1].
        """
        raise NotImplementedError

    def inpaint(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """Fills a hole, `(H, W)` bool, of `(H, W, 3)` uint8 RGB; known pixels are kept."""
        from musical_tf import conventions  # imports Keras

        missing = hole[None, ..., None].astype(np.float32)
        prediction = self.predict(conventions.normalize(image[None]), missing)
        filled = np.asarray(conventions.to_uint8(prediction))[0]
        return np.where(hole[..., None], filled, image)

    def save_generator(self, path: str | Path) -> None:
        """Writes the generator, with its inference weights, to a `.keras` file, whole or not.

        Raises:
            OSError: If it cannot be written.
        """
        with self.inference_weights(), whole_file(path) as partial:
            self.generator.save(partial)

    def save(self, folder: Path, **described: Any) -> None:
        """Writes a checkpoint, see `checkpoints.save`; raises as `check_weights` too."""
        self.check_weights()
        checkpoints.save(folder, self.state(), **described)

    def check_weights(self) -> None:
        """Looks for NaN and infinity in the state: a finite loss can have a gradient that is not.

        Raises:
            NonFiniteError: Naming the network, the weight and the step.
        """
        for name, values in self.state().items():
            for number, value in enumerate(values):
                array = checkpoints.to_array(value)
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    which = getattr(value, "name", number)
                    raise NonFiniteError(
                        f"{name} weight {which!r} is not finite at step {self.finished}"
                    )

    def check_terms(self, terms: Mapping[str, float]) -> None:
        """Raises NonFiniteError that names the first term which is NaN or infinite."""
        for name, value in terms.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"loss term {name!r} is {value} at step {self.finished}")

    def run(
        self,
        batches: Iterable[Any],
        steps: int,
        steps_per_epoch: Fraction | int,
        callbacks: Sequence[Callback] = (),
    ) -> int:
        """Trains until `steps` steps are done in all, or until something sets `stop_training`.

        Of several processes, one that sets it does one more step, in which all learn of it.

        Args:
            batches: Batch number `finished` and those after it.
            steps: Int, finished steps at the end, those of earlier runs included.
            steps_per_epoch: Photographs / batch size, exactly: an epoch may end within a batch.
            callbacks: Called in this order. Their `close` is called whatever happens.

        Returns:
            The number of finished steps.

        Raises:
            NonFiniteError: From `update`.
            ValueError: If `batches` ends early.
        """
        self.stop_training = False
        with contextlib.ExitStack() as closing:
            for callback in callbacks:
                closing.callback(callback.close)
            done = self.finished
            for callback in callbacks:
                callback.on_begin(self, done)
            stream: Iterator[Any] = iter(batches if done < steps and not self.stopped else ())
            while done < steps and not self.stopped:
                batch = next(stream, None)
                if batch is None:
                    raise ValueError(f"the batches ended at step {done} of {steps}")
                logs = self.update(batch)
                before, done = done, done + self.steps_a_call
                for callback in callbacks:
                    callback.on_step(self, done, logs)
                epoch = done // steps_per_epoch
                if epoch > before // steps_per_epoch:
                    for callback in callbacks:
                        callback.on_epoch(self, epoch, done)
            for callback in callbacks:
                callback.on_end(self, done)
        return done
