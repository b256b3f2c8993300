"""Where to look for the learning rate of each cell."""

from __future__ import annotations

# With Adam, lowest and highest. Published are 2e-4 for IndRNN, 5e-4 on the words of Penn Treebank;
# for adding two numbers 2e-3 for tanh and 2e-4 for ReLU, for IRNN down to 1e-5 on long sequences
# (all Li et al. 2018), and 2e-3 for an LSTM on the characters of Penn Treebank (Cooijmans et al.
# 2016). CFN and SCRN were published with other optimizers, MinimalRNN without one: they have the
# range of other bounded units. The widths of the ranges are our choice.
BOUNDED = (5e-4, 5e-3)
LEARNING_RATES = {"IndRNN": (1e-4, 2e-3), "IRNN": (1e-5, 1e-3)}


def learning_rates(cell: str) -> tuple[float, float]:
    """The lowest and the highest learning rate to try for a cell."""
    return LEARNING_RATES.get(cell, BOUNDED)
