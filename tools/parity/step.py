#!/usr/bin/env python3
"""How long one step of fine-tuning takes on one core, and how much memory: clapd's claptune and PyTorch, turn by turn.

    step.py --claptune PATH --work DIR [--size full|small|base] [--unfused] [--seed 1] [--core 0] [--rounds 3] [--batch 8]

A step is: forward of a batch of recordings of 10 s through the whole audio tower, wsce+mae against texts whose tower is frozen
and which were embedded beforehand, backward, gradients cut to the length 1, AdamW. Both begin with the same seeded checkpoint, do
a turn of --steps on the same pinned core, and then it is the other's turn, so that a slower minute of the machine slows both.
The first step of a turn warms up and does not count. Memory is the most that the process had resident; claptune's includes
writing checkpoint and bundle at the end, PyTorch's only steps. claptune should be a release build. Environment: setup.sh.
"""
import argparse
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

RATE = 48_000
# Both take as long for any text of this length.
WORDS = "rain dog bell wind train door glass cat horn fire water clock saw phone bird car".split()


def main():
    options = parse()
    os.sched_setaffinity(0, {options.core})
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    if options.torch:
        return pytorch(options)
    work, source, manifest = prepare(options)
    turns = {"claptune": [], "PyTorch": []}
    for turn in range(options.rounds):
        turns["claptune"].append(claptune(options, work, source, manifest))
        turns["PyTorch"].append(own_process(options))
        shown = ", ".join(f"{name} {times[-1][0]:.2f} s, {times[-1][1]:.0f} MB" for name, times in turns.items())
        print(f"turn {turn + 1}: {shown}", flush=True)
    ratios = [statistics.median(a[i] / b[i] for a, b in zip(turns["claptune"], turns["PyTorch"])) for i in (0, 1)]
    print(f"claptune over PyTorch, median of turns: {ratios[0]:.2f}x the time, {ratios[1]:.2f}x the memory")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claptune", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--size", default="full")
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.torch and not options.claptune:
        parser.error("--claptune is needed")
    return options


def folder(options):
    return options.work.resolve() / f"step-{options.size}{'-unfused' if options.unfused else ''}-{options.seed}"


def prepare(options):
    """The checkpoint, recordings and ratings; what is there is used again."""
    import soundfile

    import checkpoint

    work = folder(options)
    source, manifest = work / "checkpoint", work / "manifest.csv"
    if not manifest.is_file():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        checkpoint.build(source, options.size, options.seed, not options.unfused)
        random, rows = np.random.default_rng(options.seed), []
        for n in range(options.batch * options.steps + 3):
            soundfile.write(work / f"{n}.wav", random.normal(0, 0.1, 10 * RATE).astype(np.float32), RATE, subtype="FLOAT")
            split = "train" if n < options.batch * options.steps else "validation"
            rows.append([f"{n}.wav", text(n), n * 7 % 11, f"made up, {split}", split])
        with open(manifest, "w", newline="") as file:
            csv.writer(file).writerows([["audio", "text", "score", "listener", "split"], *rows])
    return work, source, manifest


def text(n):
    return f"a {WORDS[n % len(WORDS)]} and a {WORDS[(n // len(WORDS) + n + 1) % len(WORDS)]}"


def claptune(options, work, source, manifest):
    """Seconds a step, and megabytes."""
    import programs

    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    run = programs.checked(
        [options.claptune, "tune", "--data", manifest, "--init", source, "--out", out, "--freeze", "text", "--loss", "wsce+mae",
         "--batch", options.batch, "--steps", options.steps, "--warm-up", 0, "--cache", work / "mels"], work)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [options.batch / line["pairs_per_second"] for line in lines if line["kind"] == "step"]
    shutil.rmtree(out)
    return statistics.median(steps[1:]), run.rss_mb


def own_process(options):
    """PyTorch's, in a process of its own, whose memory is its alone."""
    done = subprocess.run([sys.executable, *sys.argv, "--torch"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def pytorch(options):
    import torch
    from torch.nn.functional import cross_entropy, normalize
    from transformers import ClapModel

    import checkpoint
    import programs

    torch.set_num_threads(1)
    source = folder(options) / "checkpoint"
    # In evaluation mode: no dropout, and batch norms keep their statistics, as claptune trains.
    model = ClapModel.from_pretrained(source).eval()
    random, size = np.random.default_rng(2), options.batch
    channels = 1 if options.unfused else 4
    mel = torch.from_numpy(random.normal(-40, 20, (size, 1, 1001, 64)).astype(np.float32)).repeat(1, channels, 1, 1)
    longer = {} if options.unfused else {"is_longer": torch.ones(size, 1, dtype=torch.bool)}
    tokens = checkpoint.load_tokenizer(source)([text(n) for n in range(size)], return_tensors="pt", padding=True)
    with torch.no_grad():
        words = normalize(model.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output, dim=-1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("audio_", "logit_scale")))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, weight_decay=0.01)
    ratings, own = torch.linspace(0, 1, size), torch.arange(size)

    def step():
        audio = normalize(model.get_audio_features(input_features=mel, **longer).pooler_output, dim=-1)
        cosines = audio @ words.T
        pair = (cross_entropy(cosines * model.logit_scale_a.exp(), own, reduction="none")
                + cross_entropy(cosines.T * model.logit_scale_t.exp(), own, reduction="none")) / 2
        loss = (ratings * pair).mean() + (cosines.diagonal() - ratings).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    times = []
    for _ in range(options.steps):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    print(json.dumps([statistics.median(times[1:]), programs.peak_kib("self") / 1024]))


if __name__ == "__main__":
    main()
