"""The stacks once more, in NumPy float64, from the papers; layers are found by their names."""

import numpy as np

from tests.cells import numpy_cells


def set_weights(model, seed=5):
    """Random weights, no two alike, and running statistics that are not those of the start."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        value = rng.normal(size=w.shape)
        if "variance" in w.path:
            value = 0.5 + value**2
        elif "kernel" in w.path and len(w.shape) == 2:
            value *= 0.7 / np.sqrt(w.shape[0])
        elif "recurrent_kernel" in w.path:
            value *= 0.4
        w.assign(value)
    return model


class Network:
    """The layers of a stack, applied one after the other, counting the recurrent ones."""

    def __init__(self, model, cell, normalization):
        self.w = {
            layer.name: [np.asarray(w, "float64") for w in layer.get_weights()]
            for layer in model.layers
        }
        self.cell, self.normalization, self.i = cell, normalization, 0

    def dense(self, name, x):
        kernel, bias = self.w[name]
        return x @ kernel + bias

    def normalize(self, name, x):
        gamma, beta, mean, variance = self.w[name]
        if mean.ndim == 2:  # one row for each step, the last one for all that follow
            steps = np.minimum(np.arange(x.shape[1]), len(mean) - 1)
            mean, variance = mean[steps], variance[steps]
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def kernel(self, x):
        """The dense layer in front of the next recurrent layer."""
        return self.dense(f"kernel_{self.i + 1}", x)

    def recurrent(self, x, kernel=True):
        if kernel and self.normalization == "before":
            x = self.kernel(x)
        self.i += 1
        if self.normalization == "before":
            x = self.normalize(f"normalization_{self.i}", x)
        w = self.w[f"recurrent_{self.i}"]
        if len(w) == 1:  # an IndRNN without input kernel
            w = [np.eye(len(w[0])), w[0], np.zeros(len(w[0]))]
        units = w[1].shape[0] if self.cell != "MinimalRNN" else w[2].shape[0]
        states = [np.zeros((len(x), units))] * (2 if self.cell == "LSTM" else 1)
        x, _ = numpy_cells.run(self.cell, {}, x, states, w)
        if self.normalization == "after":
            x = self.normalize(f"normalization_{self.i}", x)
        return x

    def plain(self, x, layers):
        for _ in range(layers):
            x = self.recurrent(x)
        return x

    def residual(self, x, blocks):
        x = self.kernel(x)
        for _ in range(blocks):
            first = self.kernel(self.recurrent(x, kernel=False))
            x = x + self.kernel(self.recurrent(first, kernel=False))
        return self.recurrent(x, kernel=False)

    def densely(self, x, blocks, first=True):
        if first:
            x = self.recurrent(x)
        for layers in blocks:
            for _ in range(layers):
                x = np.concatenate([x, self.recurrent(self.recurrent(x))], axis=-1)
            x = self.recurrent(x)
        return x
