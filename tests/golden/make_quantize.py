"""GPTQ as its paper writes it (Frantar et al., arXiv 2210.17323): with the Gram's inverse and its upper Cholesky factor,
where crates/claptune/src/quantize/round.rs needs neither. Run by hand: python tests/golden/make_quantize.py

Weights and tokens follow from a formula. It writes quantize.json beside it.
"""
import json
import pathlib

import numpy as np


def formula(rows, columns, a, b):
    """Numbers in -1..1 that both languages make alike."""
    r, c = np.indices((rows, columns))
    return ((r * a + c * b + r * c * 31) % 1009) / 504 - 1


def gptq(weights, gram):
    weights, gram = weights.copy(), gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    order = np.argsort(-np.diag(gram), kind="stable")
    inverse = np.linalg.inv(gram[order][:, order])
    upper = np.linalg.cholesky(inverse).T
    scales = np.abs(weights).max(1) / 127
    rest, out = weights[:, order], np.zeros(weights.shape)
    for j in range(len(gram)):
        out[:, j] = np.clip(np.rint(rest[:, j] / scales), -127, 127)
        error = (rest[:, j] - out[:, j] * scales) / upper[j, j]
        rest[:, j:] -= np.outer(error, upper[j, j:])
    integers = np.zeros(weights.shape)
    integers[:, order] = out
    return integers, scales


def error(weights, integers, scales, gram):
    rest = weights - integers * scales[:, None]
    return np.einsum("oi,ij,oj->", rest, gram, rest) / np.einsum("oi,ij,oj->", weights, gram, weights)


cases = []
for inputs, outputs, tokens in [(6, 3, 20), (150, 4, 400)]:
    weights = formula(outputs, inputs, 7919, 104729)
    x = formula(tokens, inputs, 5003, 65537) * (1 + 3 * (np.arange(inputs) % 5 == 2))
    x[:, 0] += 2
    gram = x.T @ x / tokens
    integers, scales = gptq(weights, gram)
    cases.append({"inputs": inputs, "outputs": outputs, "tokens": tokens, "error": error(weights, integers, scales, gram),
                  "nearest_error": error(weights, np.rint(weights / scales[:, None]), scales, gram),
                  "integers": integers.astype(int).tolist() if inputs < 10 else None})
    print(cases[-1])
pathlib.Path(__file__).with_name("quantize.json").write_text(json.dumps(cases) + "\n")
