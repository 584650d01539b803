"""Clips for the parity scripts: noise, tones, speech-like, music-like, clicks, silence, and the repository's recording.

A seed makes them: wav files, and what the reference is given of each, mono float32 at 48 kHz.
The exact clips are at 48 kHz. Resampling is no part of the reference (transformers refuses other rates), so clips at
other rates are compared by cosine alone, with scipy's resampler as the reference's.
"""
import math
import pathlib
from typing import NamedTuple

import numpy as np
import soundfile
from scipy import signal

RATE = 48_000
DEMO = pathlib.Path(__file__).resolve().parents[2] / "tests" / "audio" / "demo.ogg"


class Clip(NamedTuple):
    path: str
    reference: np.ndarray
    exact: bool


def write(folder, seed):
    """Writes every clip; returns them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    clips = [write_one(folder, name, samples, RATE, kind) for name, samples, kind in exact_clips(random)]
    clips += [write_one(folder, name, samples, rate, "FLOAT") for name, samples, rate in other_rates(random)]
    return clips


def write_one(folder, name, samples, rate, kind):
    path = folder / f"{name}.wav"
    soundfile.write(path, samples, rate, subtype=kind)
    # Read back: what a format rounds away is lost for both.
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1, dtype=np.float64)
    if rate != RATE:
        divisor = math.gcd(rate, RATE)
        mono = signal.resample_poly(mono, RATE // divisor, rate // divisor, window=("kaiser", 14.0))
    return Clip(str(path), mono.astype(np.float32), rate == RATE)


def exact_clips(random):
    """Name, samples at 48 kHz, sample format. Lengths: exactly 10 s; shorter, tiled exactly or not; longer."""
    ten = 10 * RATE
    yield "noise", random.normal(0, 0.2, ten), "FLOAT"
    yield "pink", pink(random, ten), "FLOAT"
    yield "faint", random.normal(0, 2e-5, 3 * RATE), "FLOAT"
    yield "tones", tones(random, ten), "FLOAT"
    yield "chord-i16", tones(random, 5 * RATE), "PCM_16"
    yield "sweep", sweep(ten), "PCM_24"
    yield "sweep-long", sweep(23 * RATE), "FLOAT"
    yield "tremolo", tones(random, 7 * RATE) * (1 + np.sin(math.tau * 4 * time(7 * RATE))) / 2, "FLOAT"
    yield "clicks", clicks(random, ten), "FLOAT"
    yield "click-short", clicks(random, RATE // 7), "FLOAT"
    yield "speech", speech(random, 4 * RATE + 321), "FLOAT"
    yield "speech-long", speech(random, 31 * RATE + 7), "FLOAT"
    yield "music", music(random, 479_999), "FLOAT"
    yield "music-long", music(random, 480_001), "FLOAT"
    yield "stereo", np.stack([music(random, 6 * RATE), speech(random, 6 * RATE)], axis=1), "FLOAT"
    yield "clipped", np.clip(8 * music(random, 2 * RATE), -1, 1), "FLOAT"
    yield "silence", np.zeros(ten), "FLOAT"
    yield "half-silent", np.concatenate([np.zeros(5 * RATE), pink(random, 5 * RATE)]), "FLOAT"
    yield "seven-hundred-samples", np.full(700, 0.5), "FLOAT"
    yield "dc", np.full(RATE, 0.3), "FLOAT"
    real, rate = soundfile.read(DEMO, dtype="float32")
    assert rate == RATE, f"{DEMO}: {rate} Hz"
    for start, seconds in ((0, 10), (17, 3.3), (41, 25), (70, 10), (95, 1), (102, 8)):
        yield f"real-{start}", real[start * RATE:int((start + seconds) * RATE)], "FLOAT"


def other_rates(random):
    for rate in (8_000, 16_000, 22_050, 32_000, 44_100, 96_000):
        # Band-limited well below half of every rate: what a resampler does at its edge is its own affair.
        low = signal.butter(10, 0.3 * min(rate, RATE) / rate * 2, output="sos")
        yield f"rate-{rate}", signal.sosfiltfilt(low, pink(random, 6 * rate)), rate


def time(n):
    return np.arange(n) / RATE


def pink(random, n):
    spectrum = np.fft.rfft(random.normal(size=n)) / np.sqrt(np.arange(n // 2 + 1).clip(1))
    return scaled(np.fft.irfft(spectrum, n), 0.5)


def tones(random, n):
    partials = zip(random.uniform(60, 12_000, 6), random.uniform(0.01, 1, 6))
    return scaled(sum(gain * np.sin(math.tau * hertz * time(n)) for hertz, gain in partials), 0.8)


def sweep(n):
    return 0.8 * signal.chirp(time(n), 20, n / RATE, 20_000, method="logarithmic", phi=-90)


def clicks(random, n):
    out = np.zeros(n)
    out[random.integers(0, n, max(1, n // 6000))] = 0.9
    return out


def speech(random, n):
    """Syllables: a gliding pulse train through three wandering resonances, with pauses and hisses."""
    out = []
    while sum(map(len, out)) < n:
        length = int(random.uniform(0.08, 0.35) * RATE)
        kind = random.choice(["vowel", "hiss", "pause"], p=[0.65, 0.15, 0.2])
        if kind == "pause":
            out.append(np.zeros(length))
            continue
        pitch = np.linspace(*random.uniform(90, 240, 2), length)
        source = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) if kind == "vowel" else random.normal(size=length)
        for hertz in sorted(random.uniform(300, 3500, 3)):
            radius = math.exp(-math.pi * 100 / RATE)
            source = signal.lfilter([1 - radius], [1, -2 * radius * math.cos(math.tau * hertz / RATE), radius**2], source)
        out.append(scaled(source * np.hanning(length), random.uniform(0.1, 0.7)))
    return np.concatenate(out)[:n]


def music(random, n):
    """Notes of decaying partials on a beat, over a drum of noise."""
    out = np.zeros(n + 2 * RATE)
    for start in range(0, n, int(random.uniform(0.2, 0.5) * RATE)):
        t = time(int(1.5 * RATE))
        hertz = 110 * 2 ** (random.integers(0, 36) / 12)
        note = sum(np.sin(math.tau * hertz * k * t) * np.exp(-2 * k * t) / k for k in range(1, 9))
        drum = random.normal(size=len(t)) * np.exp(-30 * t)
        out[start:start + len(t)] += note + random.uniform(0, 0.8) * drum
    return scaled(out[:n], 0.7)


def scaled(samples, peak):
    return samples * (peak / max(np.abs(samples).max(), 1e-12))
