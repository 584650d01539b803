#!/usr/bin/env python3
"""Writes tests/golden/clap/gradients.json: what PyTorch makes of the losses and gradients of the two tiny checkpoints.

Run:  tools/parity/.venv/bin/python tests/golden/clap/make_gradients.py     (after make_clap.py; a few seconds)

{"fused": {objective: {"loss": x, "numpy": y, "gradients": {tensor: [norm, dot, dot, dot]}}}, "unfused": ...,
 "step": {"length": x, "changes": {tensor: [norm, dot, dot, dot]}}}
A gradient is told by its norm and by its dot products with three waves cos((0.7 k + 0.3) i + k), i counting its
elements row by row and k from 1: thousands of numbers in four, and none can be wrong without a dot product being so.
`numpy` is the loss once more, from the embeddings, by its formula alone.
`step` is what one step of AdamW changes in the fused one for the last objective, gradients cut to the length 1.
The network is in evaluation mode: no dropout, and batch norms keep their statistics.
"""
import json
import pathlib

import numpy as np
import torch
from transformers import ClapModel

HERE = pathlib.Path(__file__).resolve().parent
PAIRS, LENGTH = 4, 9
RATINGS = [9.0, 2.5, 0.0, 6.25]
Z_SCORES = [1.1, -0.7, -1.6, 0.3]
MEAN, DEVIATION, MARGIN = 5.5, 2.75, 0.1
OBJECTIVES = ["sce", "wsce", "mse", "mae", "spo", "wsce+0.5*mae"]


def inputs(fused):
    """crates/claptune/tests/suite/train.rs has the same."""
    channels = 4 if fused else 1
    i = np.arange(PAIRS * channels * 1001 * 64, dtype=np.float64)
    mel = (-40.0 + 30.0 * np.sin(0.013 * i) * np.cos(0.00031 * i)).astype(np.float32)
    ids = [[0] + [5 + (7 * n + 13 * s) % 380 for s in range(1, LENGTH - n - 1)] + [2] + [1] * n for n in range(PAIRS)]
    ids = torch.tensor(ids)
    return torch.tensor(mel.reshape(PAIRS, channels, 1001, 64)), ids, (ids != 1).long()


def losses(audio, text, scale_a, scale_t):
    ratings, z = torch.tensor(RATINGS) / 10, torch.tensor(Z_SCORES)
    cosines = audio @ text.T
    own, n = cosines.diagonal(), torch.arange(PAIRS)
    ce = torch.nn.functional.cross_entropy
    pair = (ce(cosines * scale_a.exp(), n, reduction="none") + ce(cosines.T * scale_t.exp(), n, reduction="none")) / 2
    standard = (own * 10 - MEAN) / DEVIATION
    apart = (standard[:, None] - standard[None, :]) - (z[:, None] - z[None, :])
    spo = ((standard - z) ** 2).mean() + 0.5 * torch.clamp(apart.abs() - MARGIN, min=0).mean() / 2
    terms = {"sce": pair.mean(), "wsce": (ratings * pair).mean(), "mse": ((own - ratings) ** 2).mean(),
             "mae": (own - ratings).abs().mean(), "spo": spo}
    return terms | {"wsce+0.5*mae": terms["wsce"] + 0.5 * terms["mae"]}


def by_formula(audio, text, scale_a, scale_t):
    """In f64, with loops."""
    ratings = np.array(RATINGS) / 10
    cos = np.array([[sum(x * y for x, y in zip(a, t)) for t in text] for a in audio])
    pair = []
    for i in range(PAIRS):
        clip = np.exp(scale_a) * cos[i, i] - np.log(sum(np.exp(np.exp(scale_a) * cos[i, j]) for j in range(PAIRS)))
        words = np.exp(scale_t) * cos[i, i] - np.log(sum(np.exp(np.exp(scale_t) * cos[j, i]) for j in range(PAIRS)))
        pair.append(-(clip + words) / 2)
    z = [(10 * cos[i, i] - MEAN) / DEVIATION for i in range(PAIRS)]
    apart = [max(0, abs((z[i] - z[j]) - (Z_SCORES[i] - Z_SCORES[j])) - MARGIN) for i in range(PAIRS) for j in range(PAIRS)]
    terms = {
        "sce": sum(pair) / PAIRS,
        "wsce": sum(r * p for r, p in zip(ratings, pair)) / PAIRS,
        "mse": sum((cos[i, i] - ratings[i]) ** 2 for i in range(PAIRS)) / PAIRS,
        "mae": sum(abs(cos[i, i] - ratings[i]) for i in range(PAIRS)) / PAIRS,
        "spo": sum((a - b) ** 2 for a, b in zip(z, Z_SCORES)) / PAIRS + 0.5 * sum(apart) / PAIRS**2 / 2,
    }
    return terms | {"wsce+0.5*mae": terms["wsce"] + 0.5 * terms["mae"]}


def told(gradient):
    flat = gradient.double().flatten().numpy()
    i = np.arange(len(flat))
    waves = [float(flat @ np.cos((0.7 * k + 0.3) * i + k)) for k in (1, 2, 3)]
    return [float(f"{x:.7g}") for x in [np.linalg.norm(flat), *waves]]


def table(name, fused):
    model = ClapModel.from_pretrained(HERE / name, dtype=torch.float32).eval()
    mel, ids, mask = inputs(fused)
    more = {"is_longer": torch.ones(PAIRS, 1, dtype=torch.bool)} if fused else {}
    rows = {}
    for objective in OBJECTIVES:
        model.zero_grad()
        audio = model.get_audio_features(input_features=mel, **more).pooler_output
        text = model.get_text_features(ids, mask).pooler_output
        loss = losses(audio, text, model.logit_scale_a, model.logit_scale_t)[objective]
        loss.backward()
        formula = by_formula(audio.detach().double().numpy(), text.detach().double().numpy(),
                             model.logit_scale_a.item(), model.logit_scale_t.item())[objective]
        gradients = {k: told(p.grad) for k, p in model.named_parameters() if p.grad is not None}
        rows[objective] = {"loss": loss.item(), "numpy": formula, "gradients": gradients}
        print(name, objective, loss.item(), formula, len(gradients))
    return rows


def step():
    model = ClapModel.from_pretrained(HERE / "fused", dtype=torch.float32).eval()
    mel, ids, mask = inputs(True)
    audio = model.get_audio_features(input_features=mel, is_longer=torch.ones(PAIRS, 1, dtype=torch.bool)).pooler_output
    text = model.get_text_features(ids, mask).pooler_output
    losses(audio, text, model.logit_scale_a, model.logit_scale_t)[OBJECTIVES[-1]].backward()
    before = {k: p.detach().clone() for k, p in model.named_parameters() if p.grad is not None}
    length = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    matrices = [p for k, p in model.named_parameters() if p.dim() > 1 and "bias_table" not in k]
    others = [p for k, p in model.named_parameters() if p.dim() <= 1 or "bias_table" in k]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-3).step()
    return {"length": length, "changes": {k: told(p.detach() - before[k]) for k, p in model.named_parameters() if k in before}}


if __name__ == "__main__":
    tables = {name: table(name, name == "fused") for name in ("fused", "unfused")}
    tables["step"] = step()
    (HERE / "gradients.json").write_text(json.dumps(tables, separators=(",", ":")) + "\n", encoding="utf-8")
