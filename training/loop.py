"""The loop around the steps of a run, the same for both backends."""

import contextlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from musical_tf import conventions

from .callbacks import Callback


class NonFiniteError(ArithmeticError):
    """A loss term or a weight became NaN or infinite. The message names it and the step."""


class Loop:
    """Calls `update` until a run is done, and the callbacks around it.

    Attributes:
        steps_a_call: Steps that one `update` makes.
        stop_training: Set by a callback to end the run after this step.
    """

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

    def predict(self, image: Any, missing: np.ndarray) -> Any:
        """Returns the generator's output as it is used later: not training, averaged weights.

        Args:
            image: `(1, H, W, 3)` tensor in [-1, 1].
            missing: `(1, H, W, 1)` float32, 1 = missing.

        Returns:
            `(1, H, W, 3)` float32 tensor in [-1, 1].
        """
        raise NotImplementedError

    def inpaint(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """Fills a hole.

        Args:
            image: `(H, W, 3)` uint8 RGB; H and W as the generator wants them.
            hole: `(H, W)` bool, True = missing.

        Returns:
            `(H, W, 3)` uint8 RGB; where `hole` is False it equals `image`.
        """
        missing = hole[None, ..., None].astype(np.float32)
        prediction = self.predict(conventions.normalize(image[None]), missing)
        filled = np.asarray(conventions.to_uint8(prediction))[0]
        return np.where(hole[..., None], filled, image)

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
            steps_per_epoch: Photographs / batch size, exactly: epochs follow each other without a
                gap, and one of them may end within a batch.
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
            stream = iter(batches if done < steps and not self.stopped else ())
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
