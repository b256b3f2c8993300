"""Every cell again, as loops in NumPy float64, written from the papers: the second source.

`dropped` is what recurrent dropout multiplies h' by where it enters a product.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "linear": lambda x: x}


def indrnn(x, states, w, activation="relu", use_bias=True, dropped=1.0, **_):
    [h] = states
    b = w[2] if use_bias else 0
    return [ACTIVATIONS[activation](x @ w[0] + w[1] * (h * dropped) + b)]


def elman(x, states, w, activation="tanh", use_bias=True, dropped=1.0, **_):
    [h] = states
    b = w[2] if use_bias else 0
    return [ACTIVATIONS[activation](x @ w[0] + (h * dropped) @ w[1] + b)]


def irnn(x, states, w, **arguments):
    return elman(x, states, w, activation="relu", **arguments)


def minimal_rnn(x, states, w, use_bias=True, dropped=1.0, **_):
    [h] = states
    encoder_kernel, kernel, recurrent_kernel = w[0], *w[-3:-1]
    encoder_bias, bias = w[1], w[-1]
    if not use_bias:
        encoder_kernel, kernel, recurrent_kernel = w
        encoder_bias = bias = 0
    z = np.tanh(x @ encoder_kernel + encoder_bias)
    u = sigmoid((h * dropped) @ recurrent_kernel + z @ kernel + bias)
    return [u * h + (1 - u) * z]


def cfn(x, states, w, use_bias=True, dropped=1.0, **_):
    [h] = states
    v_theta, v_eta, candidate = np.split(w[0], 3, axis=1)
    u_theta, u_eta = np.split(w[1], 2, axis=1)
    b_theta, b_eta = np.split(w[2], 2) if use_bias else (0, 0)
    theta = sigmoid((h * dropped) @ u_theta + x @ v_theta + b_theta)
    eta = sigmoid((h * dropped) @ u_eta + x @ v_eta + b_eta)
    return [theta * np.tanh(h) + eta * np.tanh(x @ candidate)]


def scrn(x, states, w, alpha=0.95, learn_alpha=False, use_bias=False, dropped=1.0, **_):
    h, s = states
    b, a, p, r = w[:4]
    if learn_alpha:
        alpha = sigmoid(w[-1])
    s = (1 - alpha) * (x @ b) + alpha * s
    h = sigmoid(s @ p + x @ a + (h * dropped) @ r + (w[4] if use_bias else 0))
    return [h, s]


def jordan(x, states, w, output_activation="softmax", use_bias=True, dropped=1.0, **_):
    [y] = states
    if use_bias:
        kernel, recurrent_kernel, bias, output_kernel, output_bias = w
    else:
        kernel, recurrent_kernel, output_kernel = w
        bias = output_bias = 0
    h = np.tanh(x @ kernel + (y * dropped) @ recurrent_kernel + bias)
    y = h @ output_kernel + output_bias
    return [softmax(y) if output_activation == "softmax" else y]


def lstm(x, states, w, use_bias=True, use_peepholes=False, use_forget_gate=True, dropped=1.0, **_):
    h, c = states
    blocks = 4 if use_forget_gate else 3
    peepholes = np.split(w[-1], blocks - 1) if use_peepholes else [0.0] * (blocks - 1)
    pre = np.split(x @ w[0] + (h * dropped) @ w[1] + (w[2] if use_bias else 0), blocks, axis=1)
    i = sigmoid(pre[0] + peepholes[0] * c)
    f = sigmoid(pre[1] + peepholes[1] * c) if use_forget_gate else 1.0
    c = f * c + i * np.tanh(pre[-2])
    o = sigmoid(pre[-1] + peepholes[-1] * c)
    return [o * np.tanh(c), c]


def gru(x, states, w, use_bias=True, reset_after=True, dropped=1.0, **_):
    [h] = states
    p = h * dropped
    x_z, x_r, x_h = np.split(x @ w[0], 3, axis=1)
    u_z, u_r, u_h = np.split(w[1], 3, axis=1)
    b = w[2] if use_bias else np.zeros((2, w[0].shape[1]))
    b_in, b_rec = b if b.ndim == 2 else (b, np.zeros_like(b))
    (i_z, i_r, i_h), (r_z, r_r, r_h) = np.split(b_in, 3), np.split(b_rec, 3)
    z = sigmoid(x_z + i_z + p @ u_z + r_z)
    r = sigmoid(x_r + i_r + p @ u_r + r_r)
    recurrent = r * (p @ u_h + r_h) if reset_after else (r * p) @ u_h
    candidate = np.tanh(x_h + i_h + recurrent)
    return [z * h + (1 - z) * candidate]


STEPS = {
    "IndRNN": indrnn,
    "IRNN": irnn,
    "ElmanRNN": elman,
    "MinimalRNN": minimal_rnn,
    "CFN": cfn,
    "SCRN": scrn,
    "JordanRNN": jordan,
    "LSTM": lstm,
    "GRU": gru,
}


def run(name, arguments, x, states, weights, mask=None):
    """Outputs `[B, T, ...]` and last states of the cell `name` over `x` `[B, T, D]`."""
    outputs = []
    for t in range(x.shape[1]):
        new = STEPS[name](x[:, t], states, weights, **arguments)
        if mask is not None:
            new = [np.where(mask[:, t, None], n, s) for n, s in zip(new, states, strict=True)]
        states = new
        both = name == "SCRN" and arguments.get("return_context")
        outputs.append(np.concatenate(states, axis=-1) if both else states[0])
    return np.stack(outputs, axis=1), states
