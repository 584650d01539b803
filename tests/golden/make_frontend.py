#!/usr/bin/env python3
"""Writes tests/golden/frontend/*.f32: what the reference front ends make of the signals of crates/clapd-core/tests/suite/frontend/signals.rs.

Run:  python3 tests/golden/make_frontend.py        (from the repository's root; pip install numpy transformers torch)

CLAP    transformers.ClapFeatureExtractor itself, fused ("fusion": HTK bank) and unfused ("rand_trunc": Slaney bank),
        on float32 signals at 48 kHz. Longer clips are cut to their first 10 s before, since the extractor would take
        random crops.
YAMNet  a reference in numpy, float64, after tensorflow/models research/audioset/yamnet (features.py): periodic
        Hann of 400, hop 160, FFT of 512, magnitude, TensorFlow's mel matrix, ln(x + 0.001).

A file is little-endian float32: some rows of the patch, the reflected edges among them, then the mean of every frame,
so that no frame is unseen. Every signal is defined by formula or by a generator of integers,
so that Rust can make the same one; nothing of it is stored.
"""
import math
import os

import numpy as np
import transformers
from transformers import ClapFeatureExtractor

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "frontend")
MASK = (1 << 64) - 1


class Noise:
    """Knuth's MMIX linear congruential generator; its upper 24 bits as a uniform number in [-1, 1)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 40) / float(1 << 23) - 1.0


def noise(n, rate, gain):
    source = Noise(1)
    return [gain * source.next() for _ in range(n)]


def tones(n, rate):
    """A loud tone, and faint ones far from it: the quiet bands between them must stay quiet."""
    return [
        0.9 * math.sin(2 * math.pi * 440.3 * i / rate)
        + 0.001 * math.sin(2 * math.pi * 3000 * i / rate)
        + 0.00001 * math.sin(2 * math.pi * 6000 * i / rate)
        for i in range(n)
    ]


def sweep(n, rate):
    """From 20 Hz to 0.45 of the rate, exponentially."""
    span = math.log(0.45 * rate / 20.0)
    duration = n / rate
    return [0.8 * math.sin(2 * math.pi * 20.0 * duration / span * (math.exp(i / n * span) - 1)) for i in range(n)]


def music(n, rate):
    """Half-second chords of decaying harmonic notes."""
    chords = [(220.0, 277.18, 329.63), (196.0, 246.94, 293.66), (174.61, 220.0, 261.63), (164.81, 207.65, 246.94)]
    out = []
    for i in range(n):
        beat, t = divmod(i, rate // 2)
        t /= rate
        total = 0.0
        for note in chords[beat % 4]:
            for harmonic in range(1, 7):
                total += math.sin(2 * math.pi * note * harmonic * t) * math.exp(-3.0 * harmonic * t) / harmonic
        out.append(0.2 * total)
    return out


def speech(n, rate):
    """Vowels of a fifth of a second: a gliding pulse train and breath through three resonators; pauses; one hiss."""
    vowels = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (0, 0, 0), (1, 1, 1)]
    source = Noise(7)
    syllable = rate // 5
    state = [[0.0, 0.0] for _ in range(3)]
    phase = 0.0
    out = []
    for i in range(n):
        vowel = vowels[(i // syllable) % 6]
        breath = source.next()
        if vowel[0] < 2:
            out.append(vowel[0] * 0.1 * breath)
            continue
        phase += (110.0 + 50.0 * (i % syllable) / syllable) / rate
        pulse = 1.0 if phase >= 1.0 else 0.0
        phase -= pulse
        value = pulse + 0.01 * breath
        for formant, past in zip(vowel, state):
            radius = math.exp(-math.pi * 90.0 / rate)
            gain = 2.0 * radius * math.cos(2 * math.pi * formant / rate)
            value = (1.0 - radius) * value + gain * past[0] - radius * radius * past[1]
            past[1], past[0] = past[0], value
        out.append(2000.0 * value * (48000.0 / rate))
    peak = max(abs(x) for x in out)
    return [0.7 * x / peak for x in out]


def clipped(n, rate):
    return [min(1.0, max(-1.0, 4.0 * math.sin(2 * math.pi * 300.7 * i / rate))) for i in range(n)]


def impulse(n, rate):
    return [1.0 if i % 7919 == 100 else 0.0 for i in range(n)]


def signals(rate, patch, lengths):
    yield "noise", noise(patch, rate, 0.5)
    yield "faint", noise(patch, rate, 0.00002)
    yield "tones", tones(patch, rate)
    yield "sweep", sweep(patch, rate)
    yield "music", music(patch, rate)
    yield "speech", speech(patch, rate)
    yield "silence", [0.0] * patch
    yield "dc", [0.7] * patch
    yield "clipped", clipped(patch, rate)
    yield "impulse", impulse(patch, rate)
    yield "dc-1", [0.7]
    for length in lengths:
        yield f"music-{length}", music(length, rate)


def write(name, mel, rows):
    mel = np.asarray(mel, np.float64)
    data = np.concatenate([mel[rows].ravel(), mel.mean(axis=1)]).astype("<f4")
    data.tofile(os.path.join(OUT, name + ".f32"))


def clap(name, truncation):
    extractor = ClapFeatureExtractor(truncation=truncation)
    rows = [0, 1, 2, 3, 50, 100, 333, 499, 500, 667, 800, 900, 997, 998, 999, 1000]
    # Less than a frame's step to nearly a patch; a half, which fits exactly twice; longer than a patch.
    lengths = [100, 700, 100_000, 240_000, 333_333, 479_999, 530_000]
    for case, signal in signals(48_000, 480_000, lengths):
        clip = np.asarray(signal, np.float32)[:480_000]
        mel = extractor(clip, sampling_rate=48_000)["input_features"][0]
        assert mel.shape[1:] == (1001, 64) and all((copy == mel[0]).all() for copy in mel)
        write(f"{name}-{case}", mel[0], rows)


def yamnet_bank():
    mel = lambda hz: 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)
    bins = mel(np.linspace(0.0, 8000.0, 257))[:, None]
    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.maximum(0.0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
    bank[0] = 0.0
    return bank


def yamnet():
    bank = yamnet_bank()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = [0, 1, 2, 3, 20, 31, 32, 47, 48, 64, 80, 93, 94, 95]
    for case, signal in signals(16_000, 15_600, [399, 400, 5_000, 15_599, 40_000]):
        clip = np.asarray(signal, np.float32).astype(np.float64)[:15_600]
        clip = np.pad(clip, (0, 15_600 - len(clip)))
        frames = np.lib.stride_tricks.sliding_window_view(clip, 400)[::160]
        mel = np.log(np.abs(np.fft.rfft(frames * window, 512)) @ bank + 0.001)
        assert mel.shape == (96, 64)
        write(f"yamnet-{case}", mel, rows)


if __name__ == "__main__":
    print("numpy", np.__version__, "transformers", transformers.__version__)
    os.makedirs(OUT, exist_ok=True)
    clap("fused", "fusion")
    clap("unfused", "rand_trunc")
    yamnet()
