"""Puts a trained model into `saved_models/`: for TensorFlow Serving, for Keras, and with its card.

    python examples/publish.py adding_problem-IndRNN-1000 --from examples/results

writes `saved_models/<name>/1` (a SavedModel that TensorFlow Serving runs), `<name>.keras` and
`README.md`, the model card, from `<run>.keras` and `<run>.json`. It needs TensorFlow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
from files import whole
from table import number

from keras_rnncells import serving

HERE = Path(__file__).parent
SAVED_MODELS = HERE.parent / "saved_models"
# What the models were trained on, and on what terms that may be used.
DATA = {
    "adding_problem": "Random numbers, made by the script.",
    "pixel_mnist": "MNIST, freely distributed by its authors, often given as CC BY-SA 3.0; the "
    "model holds none of its images.",
    "ptb_characters": "Penn Treebank, Mikolov's preprocessing. The text is licensed by the "
    "Linguistic Data Consortium and is not part of the model.",
    "spoken_digits": "Free Spoken Digit Dataset, CC BY-SA 4.0; the model holds none of its "
    "recordings.",
}
ANSWERS = {
    "adding_problem": "`[batch, {0}, 2]`: number and mark of each step. Answer: the sum "
    "`[batch, 1]`.",
    "pixel_mnist": "`[batch, {0}, {1}]`: pixels in [0, 1]. Answer: logits of the digits "
    "`[batch, 10]`.",
    "ptb_characters": "`[batch, steps]`: numbers of characters. Answer: logits of the next one "
    "`[batch, steps, 50]`.",
    "spoken_digits": "`[batch, steps, {1}]`: log-mel frames, 100 a second, as "
    "`examples/serving/digits.py` makes them. Answer: logits of the digits at each step "
    "`[batch, steps, 10]`.",
}


def card(name: str, result: dict, model: keras.Model) -> str:
    """The model card, in Markdown."""
    experiment, published = result["experiment"], result["published"]
    beside = f" (published: {number(published)}, {result['source']})" if published else ""
    network = f"{result['cell']}, {result['layers']} layers of {result['units']} units"
    took = f"{result['steps']:,} steps, {result['seconds'] / 60:.1f} minutes"
    on = f"{result['device']}, {result['backend']}, Keras {result['versions']['keras']}"
    return f"""# {name}

{network}, {result["parameters"]:,} weights.

- **Result**: {result["metric"]}: {number(result["value"])}{beside}.
- **Training**: `{result["command"]}`, seed {result["seed"]}; {took} on {on}.
- **Data**: {DATA[experiment]}
- **Input**: {ANSWERS[experiment].format(*model.input_shape[1:])}

```python
from keras_rnncells import models

model = models.load("{name}")
```

Without Keras: TensorFlow Serving takes the folder of this card as the base path of a model. Its
signatures are `serving_default` and `padded` for whole sequences, `step` and `chunk` for one step
and some steps at a time; `1/assets.extra/model.json` has their inputs, outputs and states.
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the name of a run")
    parser.add_argument("--from", dest="folder", type=Path, default=HERE / "output")
    parser.add_argument("--name", help="of the published model (default: the experiment's)")
    parser.add_argument("--to", type=Path, default=SAVED_MODELS)
    args = parser.parse_args(argv)

    result = json.loads((args.folder / f"{args.run}.json").read_text())
    # Without the state of the optimizer, which is twice as large as the weights.
    model = keras.models.load_model(args.folder / f"{args.run}.keras", compile=False)
    name = args.name or result["experiment"]
    with whole(args.to / name) as new:
        kept = ("experiment", "metric", "value", "published", "command", "seed")
        serving.export(model, new, training_result={key: result[key] for key in kept})
        model.save(new / f"{name}.keras")
        (new / "README.md").write_text(card(name, result, model))
    print(f"Published: {args.to / name}")


if __name__ == "__main__":
    main()
