"""The table of cells: what tests, benchmarks, tuner and docs know of them. One row is one cell."""

from __future__ import annotations

from typing import NamedTuple

from keras_rnncells.base import CellRNN, RecurrentCell
from keras_rnncells.cells.cfn import CFN as CFN, CFNCell as CFNCell
from keras_rnncells.cells.elman import ElmanRNN as ElmanRNN, ElmanRNNCell as ElmanRNNCell
from keras_rnncells.cells.gru import GRU as GRU, GRUCell as GRUCell
from keras_rnncells.cells.indrnn import IndRNN as IndRNN, IndRNNCell as IndRNNCell
from keras_rnncells.cells.irnn import IRNN as IRNN, IRNNCell as IRNNCell
from keras_rnncells.cells.jordan import JordanRNN as JordanRNN, JordanRNNCell as JordanRNNCell
from keras_rnncells.cells.lstm import LSTM as LSTM, LSTMCell as LSTMCell
from keras_rnncells.cells.minimal_rnn import (
    MinimalRNN as MinimalRNN,
    MinimalRNNCell as MinimalRNNCell,
)
from keras_rnncells.cells.scrn import SCRN as SCRN, SCRNCell as SCRNCell


class Row(NamedTuple):
    """One cell.

    Attributes:
        layer: the layer.
        cell: its cell.
        equation: one step, as in the docs.
        paper: author and year, and where to read it.
        use: when to take this cell.
        parameters: how many weights it has, from D input features and U units, by the default
            arguments.
        variants: arguments, by a short name, that change the equations: what tests try.
    """

    layer: type[CellRNN]
    cell: type[RecurrentCell]
    equation: str
    paper: str
    use: str
    parameters: str
    variants: dict[str, dict]

    @property
    def name(self) -> str:
        return self.layer.__name__


CELLS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            IndRNN,
            IndRNNCell,
            "h = relu(x W + u * h' + b)",
            "[Li et al. 2018](https://arxiv.org/abs/1803.04831)",
            "hundreds to thousands of steps; deep stacks; the first to try",
            "D U + 2 U",
            {
                "default": {},
                "long": {"max_timesteps": 20, "memory": "long"},
                "tanh": {"activation": "tanh", "max_timesteps": 20},
                "no-bias": {"use_bias": False},
            },
        ),
        Row(
            IRNN,
            IRNNCell,
            "h = relu(x W + h' R + b), R starts as the identity",
            "[Le et al. 2015](https://arxiv.org/abs/1504.00941)",
            "a plain network that remembers; needs a small learning rate and clipping",
            "D U + U U + U",
            {"default": {}, "scaled": {"gain": 0.01}},
        ),
        Row(
            MinimalRNN,
            MinimalRNNCell,
            "z = tanh(x We + be), g = sigmoid(h' R + z W + b), h = g * h' + (1 - g) * z",
            "[Chen 2017](https://arxiv.org/abs/1711.06788)",
            "gated, at a third of the recurrent work of a GRU; states that can be read",
            "D U + 2 U U + 2 U",
            {"default": {}, "no-bias": {"use_bias": False}},
        ),
        Row(
            CFN,
            CFNCell,
            "h = theta * tanh(h') + eta * tanh(x W), theta and eta gates of x and h'",
            "[Laurent and von Brecht 2016](https://arxiv.org/abs/1612.06212)",
            "gated, and never chaotic: without input it forgets",
            "3 D U + 2 U U + 2 U",
            {"default": {}, "no-bias": {"use_bias": False}},
        ),
        Row(
            SCRN,
            SCRNCell,
            "s = (1 - a) x B + a s', h = sigmoid(s P + x A + h' R)",
            "[Mikolov et al. 2014](https://arxiv.org/abs/1412.7753)",
            "language: a slow context beside a fast state",
            "2 D U + 2 U U",
            {
                "default": {},
                "context": {"context_units": 3, "return_context": True, "use_bias": True},
                "learned": {"context_units": 4, "learn_alpha": True, "alpha": 0.8},
            },
        ),
        Row(
            ElmanRNN,
            ElmanRNNCell,
            "h = tanh(x W + h' R + b)",
            "[Elman 1990](https://doi.org/10.1207/s15516709cog1402_1)",
            "the baseline: short sequences",
            "D U + U U + U",
            {"default": {}, "no-bias": {"use_bias": False}},
        ),
        Row(
            JordanRNN,
            JordanRNNCell,
            "h = tanh(x W + y' R + b), y = softmax(h V + c)",
            "Jordan 1986",
            "the output itself is fed back; trains in parallel on the true outputs",
            "D U + 2 U U + 2 U",
            {
                "default": {},
                "linear": {"output_units": 3, "output_activation": "linear"},
                "no-bias": {"use_bias": False, "output_units": 2},
            },
        ),
        Row(
            LSTM,
            LSTMCell,
            "c = f * c' + i * tanh(x W + h' R + b), h = o * tanh(c), gates i, f, o",
            "[Hochreiter and Schmidhuber 1997](https://doi.org/10.1162/neco.1997.9.8.1735)",
            "the usual choice, here with peepholes, any forget bias, or the cell of 1997",
            "4 D U + 4 U U + 4 U",
            {
                "default": {},
                "peepholes": {"use_peepholes": True},
                "1997": {"use_forget_gate": False},
                "1997-peepholes": {"use_forget_gate": False, "use_peepholes": True},
                "no-bias": {"use_bias": False},
            },
        ),
        Row(
            GRU,
            GRUCell,
            "h = z * h' + (1 - z) * tanh(x W + b + r * (h' R + b2)), gates z, r",
            "[Cho et al. 2014](https://arxiv.org/abs/1406.1078)",
            "as an LSTM, with three quarters of its weights",
            "3 D U + 3 U U + 6 U",
            {
                "default": {},
                "reset-before": {"reset_after": False},
                "no-bias": {"use_bias": False},
                "before-no-bias": {"use_bias": False, "reset_after": False},
            },
        ),
    )
}
