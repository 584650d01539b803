#!/usr/bin/env python3
"""The worked example: teaches models/mini the ratings that gather.py made, and measures before and after on recordings and
listeners that were never trained on. The ratings are SIMULATED; the sounds are real.

    tune.py --claptune PATH --clapd PATH --work DIR [--start mini|nothing] [--seed 1]

It reads DIR/manifest.csv and DIR/sounds (gather.py), prints tables, and writes DIR/results-START.json and a run a folder in DIR/runs,
with what `claptune report` writes.
All options below were chosen on the training and validation splits. The test split is read at the end, once.
"""
import argparse
import csv
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OBJECTIVES = ["wsce+mae", "sce"]
# The start, and how it is trained: by name, folder, options.
STARTS = {
    # The bundle that comes with clapd: already hears and reads; the space between its two networks is trained.
    "mini": (ROOT / "models/mini", ["--epochs", "8", "--patience", "8", "--batch", "32"]),
    # A ClapModel of 0.1 million seeded random weights: knows nothing, and has 167 recordings to learn to hear and to read from.
    "nothing": (ROOT / "tests/golden/clap/unfused",
                ["--epochs", "10", "--patience", "10", "--batch", "32", "--rate", "1e-3", "--precision", "f32"]),
}
# Kinds of the demonstration's recording that no rating is about.
TAUGHT = {"a rooster crowing", "a dog barking", "footsteps on gravel", "glass breaking", "a cat meowing", "a car horn honking",
          "thunder", "rain"}
# A pair counts as matching from here on: the middle of the scale.
MATCHING = 5


def main():
    options = parse()
    begun = time.monotonic()
    manifest = options.work / "manifest.csv"
    if not manifest.is_file():
        sys.exit(f"{manifest} is not there: make tune-example-data gathers sounds and ratings")
    words, matching = options.work / "words.csv", options.work / "matching.csv"
    write_words(manifest, words, options.seed)
    write_matching(manifest, matching)
    results = {"ratings": "SIMULATED", "seed": options.seed}
    results |= example(options, options.start, *STARTS[options.start], manifest, matching, words)
    results["minutes"] = round((time.monotonic() - begun) / 60, 1)
    to = options.work / f"results-{options.start}.json"
    to.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{results['minutes']} minutes; {to} has all figures. All ratings are SIMULATED.")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for program in ("claptune", "clapd"):
        parser.add_argument(f"--{program}", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--start", choices=STARTS, default="mini")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.work = options.work.resolve()
    return options


def example(options, name, start, more, manifest, matching, words):
    """Trains a start in three ways, and measures all of them on the test split."""
    runs = options.work / "runs"
    ways = {**{objective: (objective, manifest) for objective in OBJECTIVES}, "sce, matching pairs": ("sce", matching)}
    trained = {}
    for way, (objective, data) in ways.items():
        out = runs / f"{name}-{way.replace('+', '-').replace(', ', '-').replace(' ', '-')}"
        shutil.rmtree(out, ignore_errors=True)
        print(f"\n== {name}: {way}", file=sys.stderr, flush=True)
        command = [options.claptune, "tune", "--data", data, "--init", start, "--loss", objective, "--out", out,
                   "--cache", options.work / f"mels-{name}", "--seed", str(options.seed), *more]
        begun = time.monotonic()
        subprocess.run([str(word) for word in command], check=True)
        trained[way] = (out, time.monotonic() - begun)
    bundle = start
    if not (start / "bundle.toml").is_file():
        bundle = runs / f"{name}-start"
        shutil.rmtree(bundle, ignore_errors=True)
        subprocess.run([options.claptune, "import", start, "--out", bundle], check=True)
    best = trained[OBJECTIVES[0]][0]
    found = {"start": str(start.relative_to(ROOT)), "seconds": {way: round(s) for way, (_, s) in trained.items()}}
    print(f"\n{name}: SRCC on test recordings and listeners (SIMULATED ratings), 95% intervals by recording")
    for way, (out, _) in trained.items():
        group = evaluate(options, manifest, out, bundle)
        ours, before = (model["srcc"] for model in group["models"])
        found.setdefault("before", before)
        found[way] = {"srcc": ours, "gain": group["difference"]["srcc"], "mse": group["models"][0]["mse"]}
        if way == OBJECTIVES[0]:
            print(f"  {'start':24}{shown(before)}\n  {'a perfect model':24}{shown(group['ceiling']['model'])}")
        print(f"  {way:24}{shown(ours)}   gain {shown(group['difference']['srcc'])}")
    for way in list(trained)[1:]:
        difference = evaluate(options, manifest, best, trained[way][0])["difference"]["srcc"]
        found[f"over {way}"] = difference
        print(f"  wsce+mae over {way:10} {shown(difference)}")
    if name == "mini":
        found["other words"] = other_words(options, words, best, bundle)
        found["demonstration"] = demonstration(options, best, bundle)
    subprocess.run([options.claptune, "report", best], check=True)
    return found


def evaluate(options, manifest, model, against):
    command = [options.claptune, "eval", "--data", manifest, "--model", model, "--against", against, "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return next(group for group in report["groups"] if group["group"] == "all")


def shown(figure):
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def write_matching(manifest, to):
    """The manifest without the training pairs that do not match, as a CLAP that knows no ratings is trained."""
    with open(manifest, newline="") as file:
        rows = list(csv.DictReader(file))
    sums = {}
    for row in rows:
        total, count = sums.get((row["audio"], row["text"]), (0, 0))
        sums[row["audio"], row["text"]] = (total + float(row["score"]), count + 1)
    def keep(row):
        total, count = sums[row["audio"], row["text"]]
        return row["split"] != "train" or total / count >= MATCHING
    write(to, [row for row in rows if keep(row)])


def write_words(manifest, to, seed):
    """Test recordings with words that no rating has: 10 for those of its own kind, 0 for as many of other families."""
    with open(HERE / "classes.csv", newline="") as file:
        family = {row["class"]: row["family"] for row in csv.DictReader(file)}
    with open(HERE / "words.csv", newline="") as file:
        words = [(row["class"], row["words"]) for row in csv.DictReader(file)]
    with open(manifest, newline="") as file:
        recordings = sorted({row["audio"] for row in csv.DictReader(file) if row["split"] == "test"})
    rng, rows = random.Random(seed), []
    for audio in recordings:
        kind = pathlib.Path(audio).name.rsplit("-", 1)[0]
        right = [text for own, text in words if own == kind]
        wrong = rng.sample([text for own, text in words if family[own] != family[kind]], len(right))
        rows += [{"audio": audio, "text": text, "score": score, "split": "test"}
                 for score, texts in ((10, right), (0, wrong)) for text in texts]
    write(to, rows)


def write(to, rows):
    with open(to, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def other_words(options, words, model, start):
    group = evaluate(options, words, model, start)
    after, before = (model["srcc"] for model in group["models"])
    print(f"\nwords that no rating has, right or wrong: SRCC before {shown(before)}, after {shown(after)}, "
          f"gain {shown(group['difference']['srcc'])}")
    return {"before": before, "after": after, "gain": group["difference"]["srcc"]}


def demonstration(options, model, start):
    """How many of the demonstration's sounds have their own name's score highest of all 16, among all and among those of a kind
    that no rating is about."""
    found = {}
    for when, bundle in (("before", start), ("after", model / "bundle")):
        right, untaught = named(options, bundle)
        print(f"tests/audio/demo.ogg {when}: {len(right)} of 16 sounds named, {len(right - TAUGHT)} of {untaught} that were not taught")
        found[when] = {"all": len(right), "untaught": len(right - TAUGHT), "of": untaught}
    return found


def named(options, bundle):
    audio = ROOT / "tests/audio"
    with open(audio / "demo.csv", newline="") as file:
        sounds = [(float(row["start_s"]), float(row["end_s"]), row["prompt"]) for row in csv.DictReader(file)]
    names = [name for *_, name in sounds]
    prompts = [word for name in names for word in ("-p", name)]
    command = [options.clapd, "score", audio / "demo.ogg", *prompts, "--bundle", bundle, "--json", "--hop", "0.5"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    best = {name: {} for name in names}
    for window in map(json.loads, lines):
        middle = (window["start_s"] + window["end_s"]) / 2
        for start, end, name in sounds:
            if start <= middle <= end:
                score = best[name].get(window["prompt"], -1)
                best[name][window["prompt"]] = max(score, window["cosine"])
    right = {name for name, scores in best.items() if scores and max(scores, key=scores.get) == name}
    return right, len(set(names) - TAUGHT)


if __name__ == "__main__":
    main()
