"""Writes priors.csv and background.csv.

python make_priors.py CACHE OUT        CACHE from features.py
Prior of a class: its mean probability over a clip, averaged over the clips of a kind (sfx, ambience, instrument, music, speech; development half
only), then over the kinds and the synthetic backgrounds, so that no kind outweighs another. Floor 1e-5: below it the estimate is chance.
"""
import sys
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

import background
from yamnet import Yamnet, class_names, patches

FLOOR = 1e-5
SILENT = 0.9  # a background in which YAMNet hears only silence needs no template


def development(package, caption):
    """Half of the recordings; takes of one sound share a caption and so a half."""
    return zlib.crc32(("s1" + package + caption.lower()).encode()) % 2 == 0


def clip_means(cache):
    """{kind: [mean probabilities of a clip]} of the development half."""
    kinds = defaultdict(list)
    for path in sorted(Path(cache).glob("*.npz")):
        data, at = dict(np.load(path)), 0
        for count, meta in zip(data["len"], data["meta"]):
            if development(path.stem, meta[2]):
                kinds[meta[1]].append(data["p"][at : at + count].mean(0))
            at += count
    return kinds


def main(cache, out):
    trunk, silence = Yamnet(), class_names().index("Silence")
    means = {name: trunk(patches(x)).mean(0) for name, x in background.clips().items()}
    means = {name: p for name, p in means.items() if p[silence] < SILENT}
    rows = [np.mean(clips, 0) for clips in clip_means(cache).values()] + [np.mean(list(means.values()), 0)]
    prior = np.maximum(np.mean(rows, 0), FLOOR)
    with open(Path(out) / "priors.csv", "w") as file:
        file.write("index,prior\n" + "".join(f"{i},{p:.6g}\n" for i, p in enumerate(prior)))
    with open(Path(out) / "background.csv", "w") as file:
        file.write("index," + ",".join(means) + "\n")
        file.writelines(f"{i}," + ",".join(f"{p[i]:.5g}" for p in means.values()) + "\n" for i in range(len(prior)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
