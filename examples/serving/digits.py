"""What training and listening share: recordings, sound as frames, and when to be sure."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rnncells.datasets import files

# The other examples' common face lies one folder up.
sys.path.append(str(Path(__file__).resolve().parents[1]))

RATE = 8_000  # samples a second
WINDOW, HOP = 200, 80  # 25 ms, every 10 ms
BANDS = 40
FFT = 512
# They bring the frames of the training recordings near zero mean and unit variance.
MEAN, DEVIATION = -4.5, 3.5


class Recording(NamedTuple):
    """A spoken digit.

    Attributes:
        name: `<digit>_<speaker>_<number>.wav`.
        digit: what was said.
        sound: samples in [-1, 1].
    """

    name: str
    digit: int
    sound: np.ndarray

    @property
    def split(self) -> str:
        """The test recordings are the official ones; of the others, five numbers are held out."""
        number = int(self.name.removesuffix(".wav").rsplit("_", 1)[1])
        return "test" if number < 5 else "validation" if number < 10 else "train"


def recordings(data_dir: Path | None) -> list[Recording]:
    """The Free Spoken Digit Dataset, through TFDS, in an order that does not change.

    Raises:
        Missing: if it, or a package that reads it, is not there.
        Damaged: if a file does not hold what it should.
    """
    found = files.load("spoken_digit", data_dir, batched=False)["train"]
    return sorted(
        Recording(
            one["audio/filename"].decode(),
            int(one["label"]),
            one["audio"].astype("float32") / 32768,
        )
        for one in found
    )


@cache
def _bands() -> Any:
    import tensorflow as tf

    # Within a function, since an example may be traced.
    with tf.init_scope():
        return tf.signal.linear_to_mel_weight_matrix(BANDS, FFT // 2 + 1, RATE, 60.0, RATE / 2)


def frames(sound: np.ndarray) -> np.ndarray:
    """Log-mel frames, each of its own 25 ms.

    Args:
        sound: `[..., N]`, samples in [-1, 1].

    Returns:
        `[..., (N - WINDOW) // HOP + 1, BANDS]`, float32.
    """
    import tensorflow as tf

    spectrum = tf.abs(tf.signal.stft(tf.constant(sound, tf.float32), WINDOW, HOP, FFT))
    energy = tf.tensordot(tf.square(spectrum), _bands(), 1)
    return ((tf.math.log(energy + 1e-5) - MEAN) / DEVIATION).numpy()


class Ear:
    """Makes frames of sound that comes in pieces of any length."""

    def __init__(self) -> None:
        self.rest = np.zeros(0, "float32")

    def hear(self, piece: np.ndarray) -> np.ndarray:
        """The frames that are whole with this piece of sound: `[n, BANDS]`."""
        sound = np.concatenate([self.rest, piece])
        count = max(0, (len(sound) - WINDOW) // HOP + 1)
        self.rest = sound[count * HOP :]
        if not count:
            return np.zeros((0, BANDS), "float32")
        return frames(sound[: (count - 1) * HOP + WINDOW])


class Decision:
    """Names a digit as soon as it has been probable enough for some frames in a row.

    Attributes:
        digit: the digit, `None` until it is sure.
        heard: the frames so far; those until it was sure, once it is.
    """

    def __init__(self, probability: float = 0.95, in_a_row: int = 5) -> None:
        self.probability, self.in_a_row = probability, in_a_row
        self.digit: int | None = None
        self.heard = 0
        self._last, self._times = None, 0

    def hear(self, probabilities: np.ndarray) -> int | None:
        """Takes the probabilities `[10]` after the next frame, and returns `digit`."""
        if self.digit is None:
            self.heard += 1
            best = int(np.argmax(probabilities))
            if probabilities[best] < self.probability:
                best = None
            self._times = self._times + 1 if best == self._last else 1
            self._last = best
            if best is not None and self._times >= self.in_a_row:
                self.digit = best
        return self.digit
