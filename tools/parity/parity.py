#!/usr/bin/env python3
"""Proves that claptune's import and clapd reproduce `transformers`, for any seed.

    parity.py --seed 7 --claptune PATH --clapd PATH --work DIR [--size small|full|base] [--fused|--unfused|--both]
              [--form safetensors|sharded|half|bin|old|laion|all] [--precision f32|f16] [--broken]

For every checkpoint: builds it with seeded weights, imports it, writes clips (clips.py) and prompts (prompts.py), runs
`clapd embed --json` and `clapd score --whole --json`, and compares with transformers (reference.py). Prints a table a
checkpoint; exits 1 when something is beyond tolerance. `--broken` tries damaged checkpoints instead (broken.py).
The environment: tools/parity/setup.sh. What is written stays under --work; a checkpoint and its bundle are removed
when they have been compared, unless --keep.
"""
import argparse
import itertools
import pathlib
import shutil
import sys

import numpy as np

import broken
import checkpoint
import clips
import programs
import prompts
import reference

# Per element and as a cosine (f32), and as the centred cosine (f16): what the project promises of an import.
ELEMENT, COSINE = 2e-5, 0.999999
CENTRED = 0.9999
# A score's cosine moves by no more than both embeddings do: for f32 by a length of 2e-5 each, at most; for f16 by the
# angle of a cosine of 0.9999 each.
SCORE = {"f32": 4e-5, "f16": 0.03}
# Two good resamplers (scipy's polyphase and its Fourier one) agree to 0.9988 here: where a clip has nothing, log-mel shows
# what each of them leaves at -130 dB. A wrong rate ends far below.
RESAMPLED = 0.995


def main():
    arguments = parse()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.broken:
        sys.exit(broken.check(arguments.claptune, work / "broken", arguments.seed))
    shutil.rmtree(work / "clips", ignore_errors=True)
    recordings = clips.write(work / "clips", arguments.seed)
    forms = checkpoint.FORMS if arguments.form == "all" else [arguments.form]
    fusions = {"fused": [True], "unfused": [False], "both": [True, False]}[arguments.fusion]
    extracted = {}
    passed = [compare(Comparison(arguments, work, recordings, extracted, form, fused))
              for form, fused in itertools.product(forms, fusions)]
    print("parity holds" if all(passed) else "PARITY FAILS")
    sys.exit(0 if all(passed) else 1)


def compare(comparison):
    """One that can't be run has failed, and the next ones are still of interest."""
    try:
        return comparison.run()
    except programs.Failed as error:
        print(f"{error}  FAILED", flush=True)
        return False


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--size", choices=list(checkpoint.SIZES), default="small")
    # Another name for what a size says of the audio tower.
    parser.add_argument("--variant", choices=["tiny", "base"], help="base: HTSAT-base's dims, at full size")
    fusion = parser.add_mutually_exclusive_group()
    for name in ("fused", "unfused", "both"):
        fusion.add_argument(f"--{name}", dest="fusion", action="store_const", const=name)
    parser.set_defaults(fusion="both")
    parser.add_argument("--form", choices=[*checkpoint.FORMS, "all"], default="safetensors")
    parser.add_argument("--precision", choices=["f32", "f16"], default="f32")
    parser.add_argument("--claptune", type=pathlib.Path, required=True)
    parser.add_argument("--clapd", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.variant == "base":
        arguments.size = "base"
    if not arguments.broken and not arguments.clapd:
        parser.error("--clapd is needed")
    return arguments


class Comparison:
    """One checkpoint, from weights to verdict."""

    def __init__(self, arguments, work, recordings, extracted, form, fused):
        self.arguments, self.recordings, self.extracted, self.fused, self.form = arguments, recordings, extracted, fused, form
        self.name = f"{arguments.size}-{'fused' if fused else 'unfused'}-{form}-{arguments.precision}-{arguments.seed}"
        self.folder, self.bundle = work / self.name, work / f"{self.name}.bundle"
        self.cache = work / f"{self.name}.cache"
        self.passed = True

    def run(self):
        for path in (self.folder, self.bundle, self.cache):
            shutil.rmtree(path, ignore_errors=True)
        print(f"== {self.name}", flush=True)
        source, processor, model = checkpoint.build(
            self.folder, self.arguments.size, self.arguments.seed, self.fused, self.form)
        audio = reference.embed_audio(model, self.features(processor))
        text = reference.embed_texts(model, processor, prompts.PROMPTS)
        del model  # its memory is as large as the import's
        self.import_(source, processor)
        self.compare_embeddings(audio, text)
        self.compare_scores(audio, text)
        self.measure()
        if not self.arguments.keep:
            for path in (self.folder, self.bundle, self.cache):
                shutil.rmtree(path, ignore_errors=True)
        return self.passed

    def features(self, processor):
        """One seed has two front ends, and any number of forms."""
        if self.fused not in self.extracted:
            self.extracted[self.fused] = reference.extract(processor, [clip.reference for clip in self.recordings])
        return self.extracted[self.fused]

    def import_(self, source, processor):
        command = [self.arguments.claptune, "import", source, "--out", self.bundle, "--precision", self.arguments.precision]
        if processor != source:
            command += ["--processor", processor]
        result = programs.checked(command, self.cache)
        print(f"import {result.seconds:.1f} s, {result.rss_mb:.0f} MB resident at most")

    def clapd(self, *words):
        return programs.lines([self.arguments.clapd, *words, "--bundle", self.bundle, "--json"], self.cache)

    def compare_embeddings(self, audio, text):
        files = [f"--audio={clip.path}" for clip in self.recordings]
        rows = self.clapd("embed", *files, *(f"--text={prompt}" for prompt in prompts.PROMPTS))
        inputs = [("audio", clip.path) for clip in self.recordings] + [("text", prompt) for prompt in prompts.PROMPTS]
        assert [(row["kind"], row["source"]) for row in rows] == inputs, "clapd embed answered something else"
        vectors = [np.array(row["embedding"]) for row in rows]
        count = len(self.recordings)
        sounds, sentences = np.stack(vectors[:count]), np.stack(vectors[count:])
        exact = np.array([clip.exact for clip in self.recordings])
        names = np.array([pathlib.Path(clip.path).stem for clip in self.recordings])
        print(f"{'':18}{'n':>4} {'max |diff|':>11} {'min cosine':>12} {'min centred':>12}  worst")
        self.table("audio", sounds[exact], audio[exact], names[exact])
        self.table("text", sentences, text, prompts.PROMPTS)
        self.table("audio, resampled", sounds[~exact], audio[~exact], names[~exact], resampled=True)

    def table(self, title, rows, wanted, names, resampled=False):
        difference = np.abs(rows - wanted).max(axis=1)
        cosine, centred = reference.cosines(rows, wanted), reference.centred_cosines(rows, wanted)
        worst = str(names[int(difference.argmax())])[:24]
        if resampled:
            good = cosine.min() >= RESAMPLED
        elif self.arguments.precision == "f32":
            good = difference.max() <= ELEMENT and cosine.min() >= COSINE
        else:
            good = centred.min() >= CENTRED
        self.verdict(f"{title:18}{len(rows):4} {difference.max():11.2e} {cosine.min():12.8f} {centred.min():12.8f}  {worst!r}", good)

    def compare_scores(self, audio, text):
        """The command that people use: every exact clip against every prompt."""
        exact = [i for i, clip in enumerate(self.recordings) if clip.exact]
        # A prompt says something: clapd refuses an empty one here, and embeds it above.
        spoken = [i for i, prompt in enumerate(prompts.PROMPTS) if prompt]
        asking = [prompts.PROMPTS[i] for i in spoken]
        words = [f"--prompt={prompt}" for prompt in asking]
        rows = self.clapd("score", "--whole", *words, *(self.recordings[i].path for i in exact))
        inputs = [(self.recordings[i].path, prompt) for i in exact for prompt in asking]
        assert [(row["file"], row["prompt"]) for row in rows] == inputs, "clapd score answered something else"
        assert all(0 <= row["score"] <= 10 for row in rows), "a score outside of 0 to 10"
        got = np.array([row["cosine"] for row in rows]).reshape(len(exact), -1)
        difference = np.abs(got - audio[exact] @ text[spoken].T).max()
        self.verdict(f"{'score cosines':18}{got.size:4} {difference:11.2e}", difference <= SCORE[self.arguments.precision])

    def measure(self):
        report, = self.clapd("bench")
        shown = ("load_ms", "audio_ms", "text_ms", "rss_mb", "kernel")
        print("bench:", ", ".join(f"{name} {report[name]}" for name in shown))

    def verdict(self, line, good):
        self.passed &= bool(good)
        print(line, "" if good else "  BEYOND TOLERANCE", flush=True)


if __name__ == "__main__":
    main()
