#!/usr/bin/env python3
"""The worked example's data: real sounds from Debian packages, captions that are right, partly right and wrong, and SIMULATED
listeners who rate them. No person has rated anything here; the word is in every file that this writes.

It reads sounds.csv (package, path, class) and classes.csv (class, family, caption) beside this file, and gets packages by
`apt-get download` (900 MB, once; they are not installed). In --work it writes sounds/, manifest.csv as claptune reads it, README.txt.

The same seed gives the same manifest. Nothing but Python's own library, apt-get and dpkg-deb is needed.
"""
import argparse
import csv
import hashlib
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
# What a caption is worth, 0 to 10, and how it is made. A listener hears the sound first, so a part that is missing costs more
# than one that is vague.
RIGHT, VAGUE, HALF, NEAR, WRONG = 9.0, 6.5, 5.0, 2.5, 0.5
VAGUE_TEXT = {"animal": "an animal", "weather": "weather outdoors", "water": "water", "fire": "something dangerous",
              "house": "a sound inside a house", "work": "somebody at work with tools", "person": "a sound that a person makes",
              "vehicle": "a vehicle", "music": "a musical instrument"}
# A sound under ten packages, say, must not be lost because one package is gone: the rest is enough to show the method.
LEAST_SHARE = 0.8
SPLITS = (("train", 0.6), ("validation", 0.2), ("test", 0.2))
LISTENERS = {"train": 24, "validation": 8, "test": 8}
RATINGS_A_PAIR = 4
ANCHORS_A_LISTENER = 6


def rows(name):
    with open(HERE / name, newline="") as file:
        return list(csv.DictReader(file))


def fetch(package, work):
    """Unpacks a package into work/packages/NAME, and gives that folder; None if it can't be had."""
    folder, debs = work / "packages" / package, work / "debs"
    if folder.is_dir():
        return folder
    debs.mkdir(parents=True, exist_ok=True)
    if not list(debs.glob(f"{package}_*.deb")):
        print(f"apt-get download {package}", file=sys.stderr)
        # As another user apt could not write into a private folder; the warning about that is of no use here.
        done = subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package], cwd=debs)
        if done.returncode:
            return None
    half = folder.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-x", str(next(debs.glob(f"{package}_*.deb"))), str(half)], check=True)
    half.rename(folder)
    return folder


def gather(work):
    """Copies the sounds that can be had, each once whatever its names, and gives (file, class, package)."""
    listed, found, seen, missing = rows("sounds.csv"), [], set(), []
    (work / "sounds").mkdir(parents=True, exist_ok=True)
    for package in sorted({row["package"] for row in listed}):
        folder = fetch(package, work)
        for row in (row for row in listed if row["package"] == package):
            source = folder / row["path"] if folder else None
            if source is None or not source.is_file():
                missing.append(f"{package}: {row['path']}")
                continue
            content = source.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            name = f"{row['class']}-{digest[:12]}{source.suffix.lower()}"
            (work / "sounds" / name).write_bytes(content)
            found.append((f"sounds/{name}", row["class"], package))
    for name in missing:
        print(f"missing: {name}", file=sys.stderr)
    if len(missing) > (1 - LEAST_SHARE) * len(listed):
        sys.exit(f"{len(missing)} of {len(listed)} sounds are missing; at least {LEAST_SHARE:.0%} are needed: "
                 "is the network there, and has `apt-get update` run?")
    return sorted(found)


def captions(kind, classes, rng):
    """(text, what it is worth) of one sound: right, vague, half right, near, wrong twice."""
    family, right = classes[kind]["family"], classes[kind]["caption"]
    near = [c["caption"] for n, c in classes.items() if c["family"] == family and n != kind]
    far = [c["caption"] for c in classes.values() if c["family"] != family]
    other, wrong, also = rng.sample(far, 3)
    half = f"{right} and {other}" if rng.random() < 0.5 else f"{other} and {right}"
    texts = [(right, RIGHT), (VAGUE_TEXT[family], VAGUE), (half, HALF), (wrong, WRONG), (also, WRONG)]
    return texts + [(rng.choice(near), NEAR)] if near else texts


class Listener:
    """Simulated: a bias, a use of the scale, noise, and now and then no care at all."""

    def __init__(self, name, lazy, rng):
        self.name, self.rng = name, rng
        self.bias, self.spread = rng.gauss(0, 0.8), rng.uniform(0.6, 1.2)
        self.laziness = 0.8 if lazy else rng.uniform(0, 0.1)

    def rate(self, worth):
        if self.rng.random() < self.laziness:
            return self.rng.randint(2, 9)
        perceived = 5 + self.spread * (worth - 5) + self.bias + self.rng.gauss(0, 1.3)
        return max(0, min(10, round(perceived)))


def rate(sounds, classes, seed):
    """The manifest's rows. Every recording, and every simulated listener, is in one split."""
    rng = random.Random(seed)
    order = sounds[:]
    rng.shuffle(order)
    begin, out = 0, []
    for split, share in SPLITS:
        end = len(order) if split == SPLITS[-1][0] else begin + round(share * len(order))
        # Every eighth hardly listens: what the screening by anchors is for.
        listeners = [Listener(f"simulated-{split}-{n:02}", n % 8 == 7, rng) for n in range(LISTENERS[split])]
        for audio, kind, _ in order[begin:end]:
            for text, worth in captions(kind, classes, rng):
                for listener in rng.sample(listeners, RATINGS_A_PAIR):
                    out.append([audio, text, listener.rate(worth), listener.name, split, "natural", classes[kind]["family"], "false"])
        for listener in listeners:
            for audio, kind, _ in rng.sample(order[begin:end], ANCHORS_A_LISTENER):
                text = rng.choice([c["caption"] for c in classes.values() if c["family"] != classes[kind]["family"]])
                out.append([audio, text, listener.rate(WRONG), listener.name, "", "natural", classes[kind]["family"], "true"])
        begin = end
    return out


def main():
    parser = argparse.ArgumentParser(description="Gathers real sounds and has SIMULATED listeners rate them.")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for packages, sounds and the manifest")
    parser.add_argument("--seed", type=int, default=1, help="of captions and simulated listeners")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    classes = {row["class"]: row for row in rows("classes.csv")}
    sounds = gather(options.work)
    ratings = rate(sounds, classes, options.seed)
    with open(options.work / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["audio", "text", "score", "listener", "split", "kind", "category", "anchor"])
        writer.writerows(ratings)
    counts = {package: sum(p == package for _, _, p in sounds) for package in sorted({p for _, _, p in sounds})}
    (options.work / "README.txt").write_text(
        f"{len(sounds)} real sounds of Debian packages, whose licences are theirs (packages/*/usr/share/doc/*/copyright):\n"
        + "".join(f"  {package}: {count}\n" for package, count in counts.items())
        + f"\nThe {len(ratings)} ratings in manifest.csv are SIMULATED (seed {options.seed}): no person has heard these sounds for it.\n"
        "They show that the method works, not how people would rate.\n")
    print(f"{options.work / 'manifest.csv'}: {len(sounds)} real sounds, {len(ratings)} SIMULATED ratings")


if __name__ == "__main__":
    main()
