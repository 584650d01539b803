"""Levels as a reference implementation gives them. Run by hand, with scipy 1.17: python tests/golden/make_sound_level.py

The weighting A is scipy's analogue filter of the standard's poles (signal.freqs_zpk), applied to the whole signal's spectrum, so that no
digital filter is its judge; the time weighting F is scipy's lfilter, and percentiles are numpy's. The signals follow from formulas that
crates/clapd-core/tests/suite/sound_level.rs has, too. It writes sound_level.json beside it.
"""
import json
import pathlib

import numpy as np
from scipy import signal

POLES = 2 * np.pi * np.array([20.598997, 20.598997, 107.65265, 737.86223, 12194.217, 12194.217])
MASK = (1 << 64) - 1


def white(n, seed):
    """Knuth's MMIX generator; its upper 24 bits as a number in [-1, 1)."""
    state, out = seed, np.empty(n)
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        out[i] = (state >> 40) / (1 << 23) - 1
    return out


def pink(rate, seconds):
    """White noise through Kellet's three poles: 3 dB an octave; every third second is 20 dB fainter."""
    x = white(rate * seconds, 7)
    y = sum(signal.lfilter([b], [1, -a], x) for a, b in [(0.99765, 0.0990460), (0.96300, 0.2965164), (0.57000, 1.0526913)]) + 0.1848 * x
    return 0.02 * y * np.where(np.arange(len(x)) // rate % 3 == 2, 0.1, 1.0)


def sweep(rate, seconds):
    """A sine from 31.5 Hz to 0.45 of the rate, each octave as long as another."""
    t = np.arange(rate * seconds) / rate
    octaves = np.log(0.45 * rate / 31.5)
    return 0.3 * np.sin(2 * np.pi * 31.5 * seconds / octaves * np.expm1(t / seconds * octaves))


def tones(rate, seconds):
    """A tone a second, half an octave apart."""
    n = np.arange(rate * seconds)
    hz = 40.0 * 2.0 ** (n // rate / 2)
    return 0.2 * np.sin(2 * np.pi * np.minimum(hz, 0.45 * rate) * (n % rate) / rate)


def weigh(x, rate):
    padded = np.concatenate([x, np.zeros(2 * rate)])
    hz = np.fft.rfftfreq(len(padded), 1 / rate)
    _, gain = signal.freqs_zpk([0, 0, 0, 0], -POLES, 1.0, worN=2 * np.pi * np.concatenate([[1000.0], hz[1:]]))
    gain = np.concatenate([[0.0], gain[1:] / abs(gain[0])])
    return np.fft.irfft(np.fft.rfft(padded) * gain, len(padded))[: len(x)]


def db(power):
    return round(float(10 * np.log10(power)), 4)


def levels(x, rate):
    a2 = weigh(x, rate) ** 2
    share = -np.expm1(-1 / (0.125 * rate))
    fast = signal.lfilter([share], [1, share - 1], a2)
    of = lambda values, f: [db(f(second)) for second in values.reshape(-1, rate)]
    found = {"laeq": of(a2, np.mean), "lafmax": of(fast, np.max), "lzeq": of(x, np.var)}
    if len(x) == 60 * rate:
        looks = 10 * np.log10(fast[(np.arange(600) % 10 + 1) * rate // 10 + np.arange(600) // 10 * rate - 1])
        found["minute"] = {"laeq": db(a2.mean()), "lafmax": db(fast.max()),
                           **{f"la{n}": round(float(np.percentile(looks, 100 - n)), 4) for n in (10, 50, 90)}}
    return found


cases = []
for rate in [8_000, 16_000, 44_100, 48_000]:
    kinds = [("pink", pink, 60 if rate == 16_000 else 6), ("sweep", sweep, 12), ("tones", tones, 2 * int(np.log2(0.45 * rate / 40)))]
    for name, make, seconds in kinds:
        x = make(rate, seconds).astype(np.float32).astype(np.float64)
        cases.append({"signal": name, "rate": rate, "seconds": seconds, **levels(x, rate)})
pathlib.Path(__file__).with_name("sound_level.json").write_text(json.dumps({"cases": cases}) + "\n")
