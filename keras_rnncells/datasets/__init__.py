"""The tasks of the papers: generated, as images, and as text; and batches that can be resumed.

TensorFlow and TensorFlow Datasets are imported only by what reads or writes their formats.
"""

from keras_rnncells.datasets.batches import Batches, FollowEpochs, Shuffled, Streams
from keras_rnncells.datasets.files import Damaged, Missing
from keras_rnncells.datasets.generated import (
    ADDING_CHANCE,
    adding_problem,
    copy_memory,
    copy_memory_chance,
)
from keras_rnncells.datasets.mnist import PixelMNIST, pixel_mnist
from keras_rnncells.datasets.penn_treebank import PennTreebank, penn_treebank

__all__ = [
    "ADDING_CHANCE",
    "Batches",
    "Damaged",
    "FollowEpochs",
    "Missing",
    "PennTreebank",
    "PixelMNIST",
    "Shuffled",
    "Streams",
    "adding_problem",
    "copy_memory",
    "copy_memory_chance",
    "penn_treebank",
    "pixel_mnist",
]
