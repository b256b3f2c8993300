"""Where to look for the learning rate of each cell."""

from __future__ import annotations

# With Adam, lowest and highest. Published: for adding two numbers 2e-3 for tanh and 2e-4 for ReLU,
# for IRNN down to 1e-5 on long sequences (Li et al. 2018, section 5.1); IndRNN 2e-4 in all deep
# networks (Li et al. 2019); LSTM 2e-3 on Penn Treebank (Krueger et al. 2016). CFN, MinimalRNN and
# SCRN were published with other optimizers: they have the range of other bounded units.
BOUNDED = (5e-4, 5e-3)
LEARNING_RATES = {"IndRNN": (1e-4, 2e-3), "IRNN": (1e-5, 1e-3)}


def learning_rates(cell: str) -> tuple[float, float]:
    """The lowest and the highest learning rate to try for a cell."""
    return LEARNING_RATES.get(cell, BOUNDED)
