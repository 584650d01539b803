"""YAMNet's class probabilities of every sound of unpacked Debian packages, cached one .npz a package.

python features.py LIST.csv UNPACKED CACHE        LIST has package, path, seconds, derived_caption, kind
Caps per package and kind keep voices and music from drowning the rest; a file is read to at most the seconds named.
"""
import csv
import sys
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from yamnet import Yamnet, patches, read

FILES = {"speech": 60, "music": 12, "instrument": 170, "sfx": 700, "ambience": 60}
SECONDS = {"speech": 10, "music": 20, "instrument": 10, "sfx": 20, "ambience": 240}


def in_batches(trunk, x):
    parts = [trunk(x[a : a + 64], embeddings=True) for a in range(0, len(x), 64)]
    return np.concatenate([p for p, _ in parts]), np.concatenate([e for _, e in parts]).mean(0)


def package(trunk, rows, root):
    seen, found = Counter(), []
    for row in sorted(rows, key=lambda r: zlib.crc32(r["path"].encode())):
        seen[row["kind"]] += 1
        if seen[row["kind"]] > FILES[row["kind"]]:
            continue
        try:
            samples = read(root / row["path"], SECONDS[row["kind"]])
        except (OSError, RuntimeError) as error:
            print("skipped", row["path"], error)
            continue
        if len(samples) >= 800 and np.isfinite(samples).all():
            found.append((row, *in_batches(trunk, patches(samples))))
    return found


def main(list_file, root, cache):
    trunk, packages = Yamnet(), defaultdict(list)
    with open(list_file, newline="") as file:
        for row in csv.DictReader(file):
            packages[row["package"]].append(row)
    for name, rows in packages.items():
        target = Path(cache) / f"{name}.npz"
        if target.exists() or not (Path(root) / name).is_dir():
            continue
        found = package(trunk, rows, Path(root))
        if found:
            meta = np.array([(r["path"], r["kind"], r["derived_caption"]) for r, _, _ in found])
            np.savez(target, p=np.concatenate([p for _, p, _ in found]), len=[len(p) for _, p, _ in found],
                     e=np.stack([e for _, _, e in found]), meta=meta)


if __name__ == "__main__":
    main(*sys.argv[1:4])
