"""Synthetic backgrounds defined by formula: what a room sounds like when nothing happens. name -> 12 s of samples at 16 kHz."""
import numpy as np

from yamnet import RATE

SECONDS = 12
LEVELS = (-50, -40, -30, -20, -12)  # dB relative to full scale, RMS of the noise or amplitude of the lowest partial


def _shaped(white, shape):
    """Noise with the given spectral shape, RMS 1."""
    frequency = np.fft.rfftfreq(len(white), 1 / RATE)
    noise = np.fft.irfft(np.fft.rfft(white) * shape(frequency), len(white))
    return noise / noise.std()


def sources(seed, fan_cut, blade, motor, partials):
    """The seven kinds at level 1: white, pink, brown, a fan, mains hum of 50 and 60 Hz, hum in hiss."""
    t = np.arange(SECONDS * RATE) / RATE
    white = np.random.default_rng(seed).standard_normal(len(t))
    pink = _shaped(white, lambda f: 1 / np.sqrt(np.maximum(f, 20)))
    brown = _shaped(white, lambda f: 1 / np.maximum(f, 20))
    air = _shaped(white, lambda f: (f < fan_cut) / np.sqrt(np.maximum(f, 40)))
    fan = air * (1 + 0.1 * np.sin(2 * np.pi * blade * t)) + 0.5 * np.sin(2 * np.pi * motor * t)
    hum = {mains: sum(np.sin(2 * np.pi * mains * k * t) / k for k in partials) for mains in (50, 60)}
    return {"white": white, "pink": pink, "brown": brown, "fan": fan, "hum50": hum[50], "hum60": hum[60],
            "hiss": hum[50] + 0.05 * white}


def clips(seed=7, fan_cut=2500, blade=23, motor=115, partials=(1, 2, 3, 4, 6), levels=LEVELS):
    kinds = sources(seed, fan_cut, blade, motor, partials)
    return {f"{kind}{level}": np.clip(x * 10 ** (level / 20), -1, 1).astype(np.float32)
            for level in levels for kind, x in kinds.items()}


def held_out():
    """Other seeds, cuts, harmonics and levels, never used to make a template."""
    return clips(seed=11, fan_cut=1800, blade=17, motor=87, partials=(1, 3, 5), levels=(-60, -45, -35, -25))
