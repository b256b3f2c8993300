"""Writes the trained network for TensorFlow Serving, as the next version.

python examples/serving/export.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras

from keras_rnncells import serving

OUTPUT = Path(__file__).resolve().parents[1] / "output"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", type=Path, default=OUTPUT / "spoken_digits-IndRNN.keras", help="of train.py")
    add("--to", type=Path, default=OUTPUT / "models" / "spoken_digits", help="folder of versions")
    args = parser.parse_args(argv)

    network = keras.models.load_model(args.model, compile=False)
    # Clients want probabilities.
    answers = keras.layers.Softmax(name="probabilities")(network.output)
    model = keras.Model(network.input, answers, name="spoken_digits")
    told = {}
    if (result := args.model.with_suffix(".json")).exists():
        result = json.loads(result.read_text())
        told = {key: result[key] for key in ("metric", "value", "early", "command")}
    print(f"Exported: {serving.export(model, args.to, training_result=told)}")


if __name__ == "__main__":
    main()
