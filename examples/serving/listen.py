"""Listens to a recording as it would to a microphone, and names the digit once it is sure.

    python examples/serving/listen.py 7_jackson_0.wav                                   # no server
    python examples/serving/listen.py 7_jackson_0.wav --url http://localhost:8501
    python examples/serving/listen.py my_own.wav --url grpc://localhost:8500

The recording is a WAV file (8 kHz, 16 bit, mono), or the name of one of the dataset.
"""

from __future__ import annotations

import argparse
import sys
import wave
from pathlib import Path

import numpy as np
from digits import HOP, RATE, WINDOW, Decision, Ear, recordings
from export import OUTPUT

from keras_rnncells import serving


def options(doc: str) -> argparse.ArgumentParser:
    """The options of a script that asks a model."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--url", help="of a server: http://host:8501 or grpc://host:8500 (default: no server)")
    add("--model", default="spoken_digits", help="its name at the server")
    add(
        "--local",
        type=Path,
        default=OUTPUT / "models" / "spoken_digits",
        help="without a server: the exported folder",
    )
    return parser


def the_model(args: argparse.Namespace) -> serving.StreamingModel:
    """At the server, or here: the same to whoever uses it."""
    try:
        if args.url:
            return serving.Client(args.url, args.model)
        return serving.StreamingModel(args.local)
    except (serving.ServerError, ValueError, ModuleNotFoundError) as error:  # one sentence
        sys.exit(str(error))


def sound_of(recording: str, data_dir: Path | None) -> np.ndarray:
    """The samples of a WAV file, or of a recording of the dataset."""
    if not Path(recording).exists():
        found = {one.name: one.sound for one in recordings(data_dir)}
        if recording not in found:
            raise FileNotFoundError(f"{recording} is neither a file nor one of the dataset.")
        return found[recording]
    with wave.open(recording) as file:
        kind = file.getframerate(), file.getsampwidth(), file.getnchannels()
        if kind != (RATE, 2, 1):
            raise OSError(
                f"{recording} must be WAV of 8000 Hz, 2 bytes a sample, 1 channel. It has {kind}."
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32") / 32768


def main(argv: list[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("recording", help="a WAV file, or <digit>_<speaker>_<number>.wav")
    parser.add_argument("--data-dir", type=Path, help="folder of the dataset (default: of TFDS)")
    args = parser.parse_args(argv)
    try:
        sound = sound_of(args.recording, args.data_dir)
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(str(error))
    if len(sound) < WINDOW:
        sys.exit(f"{args.recording} is shorter than the {WINDOW} samples of a frame.")

    session = the_model(args).session()
    ear, decision = Ear(), Decision()
    for start in range(0, len(sound), HOP):  # as it comes from a microphone
        for frame in ear.hear(sound[start : start + HOP]):
            [probabilities] = session.step(frame[None])
            before = decision.digit
            if decision.hear(probabilities) is not None and before is None:
                print(
                    f"after {min(start + HOP, len(sound)) / RATE:.2f} s: {decision.digit} "
                    f"({100 * probabilities[decision.digit]:.0f} %)",
                    flush=True,
                )
    best = int(probabilities.argmax())
    print(f"at the end, {len(sound) / RATE:.2f} s: {best} ({100 * probabilities[best]:.0f} %)")


if __name__ == "__main__":
    main()
