#!/usr/bin/env python3
"""Writes tests/golden/clap/fused.pt: the weights of fused/ as LAION's training code saves them.

Run:  tools/parity/.venv/bin/python tests/golden/clap/make_laion.py     (after make_clap.py)

What only LAION's front end and heads use is there under its names, but cut to a few numbers.
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools" / "parity"))

import torch
from safetensors.torch import load_file

import checkpoint

LARGE = ("spectrogram_extractor", "logmel_extractor", "tscam_conv", ".head.", "attn_mask", "_transform.")
state = checkpoint.to_laion(load_file(HERE / "fused" / "model.safetensors"))
state = {name: torch.zeros(2) if any(part in name for part in LARGE) else value.contiguous().clone()
         for name, value in state.items()}
torch.save(checkpoint.as_laion_saves(state), HERE / "fused.pt")
print(f"{len(state)} tensors, {(HERE / 'fused.pt').stat().st_size} bytes")
