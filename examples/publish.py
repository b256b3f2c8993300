"""Puts a trained model into `saved_models/`: for TensorFlow Serving, for Keras, and with its card.

    python examples/publish.py adding_problem-IndRNN-1000 --from examples/results

writes `saved_models/<name>/1` (a SavedModel that TensorFlow Serving runs), `<name>.keras` and
`README.md`, the model card, from `<run>.keras` and `<run>.json`. It needs TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import keras
from files import whole
from table import number

from keras_rnncells import serving

HERE = Path(__file__).parent
SAVED_MODELS = HERE.parent / "saved_models"


class About(NamedTuple):
    """What the card says of all models of an experiment.

    In it `{0}` and `{1}` are the sizes of a sequence.
    """

    data: str  # and the terms of its use
    protocol: str
    answers: str
    call: str


ABOUT = {
    "adding_problem": About(
        data="Random numbers, made by the script: no licence.",
        protocol="After every 100 steps 1,000 other sequences are read. The weights with the least "
        "error are kept and read 1,000 more sequences, once.",
        answers="From `[batch, {0}, 2]`, number and mark of each step, the sum `[batch, 1]` of the "
        "marked numbers.",
        call="""
from keras_rnncells import datasets, models

model = models.load("{name}")
x, sums = datasets.adding_problem(4, timesteps={0}, seed=7)
print(model.predict(x), sums)
""",
    ),
    "pixel_mnist": About(
        data="MNIST, freely distributed by its authors, often given as CC BY-SA 3.0; the model "
        "holds none of its images.",
        protocol="The last 5,000 of the training images are held out. The weights that are best on "
        "them are kept and read the test images, once.",
        answers="From `[batch, {0}, {1}]`, the brightness of pixels, the logits `[batch, 10]` of "
        "the digits.",
        call="""
import numpy as np
from keras_rnncells import models

model = models.load("{name}")
image = np.zeros((28, 28), "float32")  # from 0, black, to 1, white
image[4:24, 13:15] = 1
print(model.predict(image.reshape(1, {0}, {1})).argmax())
""",
    ),
    "ptb_characters": About(
        data="Penn Treebank, Mikolov's preprocessing. The text is licensed by the Linguistic Data "
        "Consortium and is not part of the model.",
        protocol="After each epoch the validation text is read. The weights that are best on it "
        "are kept and read the test text, once, as so many streams side by side as a batch has.",
        answers="From `[batch, steps]`, the places of characters in `symbols` below (`_` is a "
        "space), the logits `[batch, steps, 50]` of the next one. Each text starts anew; "
        "`keras_rnncells.serving.StreamingModel` goes on with one.",
        call="""
import numpy as np
from keras_rnncells import models

model = models.load("{name}")
symbols = {symbols!r}
text = [symbols.index(character) for character in "the_compan"]
print(symbols[model.predict(np.array([text]))[0, -1].argmax()])
""",
    ),
    "spoken_digits": About(
        data="Free Spoken Digit Dataset, CC BY-SA 4.0; the model holds none of its recordings.",
        protocol="The test recordings are the official ones, numbers 0 to 4 of each speaker and "
        "digit, read once; numbers 5 to 9 are held out and choose the weights.",
        answers="From `[batch, steps, {1}]`, log-mel frames, 100 a second, the logits "
        "`[batch, steps, 10]` of the digits at each step.",
        call="""
import numpy as np
from keras_rnncells import models

model = models.load("{name}")
frames = np.zeros((1, 40, {1}), "float32")  # examples/serving/digits.py makes them
print(model.predict(frames)[0, -1].argmax())
""",
    ),
}
# What of a result goes with the exported model.
KEPT = ("experiment", "metric", "value", "published", "command", "seed", "test_mse", "symbols")


def card(name: str, result: dict, model: keras.Model) -> str:
    """The model card, in Markdown."""
    about, published = ABOUT[result["experiment"]], result["published"]
    sizes = model.input_shape[1:]
    call = about.call.format(*sizes, name=name, symbols=result.get("symbols")).strip()
    beside = f" (published: {number(published)}, {result['source']})" if published else ""
    network = f"{result['cell']}, {result['layers']} layers of {result['units']} units"
    took = f"{result['steps']:,} steps, {result['seconds'] / 60:.1f} minutes"
    on = f"{result['device']}, {result['backend']}, Keras {result['versions']['keras']}"
    mse = result.get("test_mse")
    test = "" if mse is None else f" Mean squared error of the kept weights: {mse:.2g}."
    return f"""# {name}

{network}, {result["parameters"]:,} weights.

- **Result**: {result["metric"]}: {number(result["value"])}{beside}.{test}
- **Protocol**: {about.protocol}
- **Training**: `{result["command"]}`, seed {result["seed"]}; {took} on {on}.
- **Data**: {about.data}
- **Answers**: {about.answers.format(*sizes)}

```python
{call}
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
    if "permuted" in result["variant"].split("-"):
        sys.exit("The order of permuted pixels is not in the model: nobody could ask it.")
    # Without the state of the optimizer, which is twice as large as the weights.
    model = keras.models.load_model(args.folder / f"{args.run}.keras", compile=False)
    name = args.name or result["experiment"]
    with whole(args.to / name) as new:
        kept = {key: result[key] for key in KEPT if key in result}
        serving.export(model, new, training_result=kept)
        model.save(new / f"{name}.keras")
        (new / "README.md").write_text(card(name, result, model))
    print(f"Published: {args.to / name}")


if __name__ == "__main__":
    main()
