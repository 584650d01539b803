#!/usr/bin/env python3
"""Writes tests/golden/clap: two tiny CLAP checkpoints and what transformers makes of clips and texts with them.

Run:  tools/parity/.venv/bin/python tests/golden/clap/make_clap.py     (after tools/parity/setup.sh; a few seconds)

fused/      fusion, HTK mel bank, f32 safetensors
unfused/    no fusion, Slaney mel bank, f16 safetensors, whose values the reference uses as f32
Each folder is what ClapModel.save_pretrained and the processor's files are, and `expected.json`:
  audio   [{"clip", "embedding"}], clips by the names of crates/clapd-core/tests/suite/frontend/signals.rs: `music` is 480,000 samples at
          48 kHz, `music-700` is 700; longer ones are cut to their first 480,000 (10 s)
  text    [{"text", "embedding"}], cut to 77 tokens with their markers
One clip, one text at a time (tools/parity/reference.py says why). Weights are seeded, but torch does not promise the
same random numbers for every version: rebuild both, checkpoint and expectations, or neither.
"""
import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tools" / "parity"), str(HERE.parent)]

import numpy as np

import checkpoint
import make_frontend
import prompts
import reference

MAKE = {
    "noise": lambda n: make_frontend.noise(n, reference.RATE, 0.5),
    "tones": lambda n: make_frontend.tones(n, reference.RATE),
    "sweep": lambda n: make_frontend.sweep(n, reference.RATE),
    "music": lambda n: make_frontend.music(n, reference.RATE),
    "speech": lambda n: make_frontend.speech(n, reference.RATE),
    "silence": lambda n: [0.0] * n,
    "impulse": lambda n: make_frontend.impulse(n, reference.RATE),
    "clipped": lambda n: make_frontend.clipped(n, reference.RATE),
}
# Exactly 10 s; shorter: tiled and padded, tiled exactly, a few samples, one sample short; longer: a little, by half.
CLIPS = ["noise", "tones", "sweep", "silence", "speech-333333", "music-240000", "impulse-100000", "clipped-700",
         "music-479999", "speech-480300", "music-720000"]
TEXTS = prompts.EVERYDAY[:3] + prompts.UNICODE[:7] + prompts.ODD + prompts.LONG


def clip(name):
    kind, _, length = name.partition("-")
    return np.asarray(MAKE[kind](int(length or reference.CLIP)), np.float32)


def write(name, seed, fused, form, clips):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    _, processor, model = checkpoint.build(folder, "small", seed, fused, form)
    audio = reference.embed_audio(model, reference.extract(processor, clips))
    text = reference.embed_texts(model, processor, TEXTS)
    for kind, rows in (("audio", audio), ("text", text)):
        spread = np.sort((rows @ rows.T)[np.triu_indices(len(rows), 1)])
        print(f"{name} {kind}: cosines of different ones from {spread[0]:.3f}, median {np.median(spread):.3f}")
        assert np.median(spread) < 0.9, "embeddings so alike would hide errors"
    expected = {
        "audio": [{"clip": c, "embedding": row} for c, row in zip(CLIPS, rounded(audio))],
        "text": [{"text": t, "embedding": row} for t, row in zip(TEXTS, rounded(text))],
    }
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")


def rounded(rows):
    """To 1e-7: finer than f32 at the size of these numbers."""
    return [[round(x, 7) for x in row] for row in rows.tolist()]


if __name__ == "__main__":
    clips = [clip(name) for name in CLIPS]
    write("fused", 1, True, "safetensors", clips)
    write("unfused", 2, False, "half", clips)
