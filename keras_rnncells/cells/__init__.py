"""The cells, one file per system, and their table."""

from keras_rnncells.cells.table import *  # noqa: F403
