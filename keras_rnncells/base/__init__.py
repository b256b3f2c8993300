"""Written once for every cell: the contract of a cell, the recurrent layer, and the noise."""

from keras_rnncells.base.cell import RecurrentCell
from keras_rnncells.base.rnn import RNN, CellRNN

__all__ = ["RNN", "CellRNN", "RecurrentCell"]
