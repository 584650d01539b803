#!/usr/bin/env python3
"""Builds demo.ogg and demo.csv from sounds inside Debian 12 packages (CREDITS.md names each).

    mkdir debs && cd debs && apt-get download supertuxkart-data minetest-data openttd-opensfx \
        scratch minetest-mod-homedecor plee-the-bear-data sonic-pi-samples 0ad-data && cd ..
    python3 make_demo.py debs

Needs dpkg-deb, ffmpeg, oggenc, espeak-ng, and Python with numpy. The mix is deterministic: the
noise has a fixed seed and the Ogg stream a fixed serial number, so equal tools give equal bytes.
"""
import csv
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

RATE = 48_000
HERE = pathlib.Path(__file__).resolve().parent
GAMES = "./usr/share/games/"
STK = ("supertuxkart-data", GAMES + "supertuxkart/data/sfx/")
ZERO_AD = ("0ad-data", GAMES + "0ad/mods/public/public.zip")
SCRATCH = ("scratch", "./usr/share/scratch/Media/Sounds/")
MINETEST = ("minetest-data", GAMES + "minetest/games/minetest_game/mods/default/sounds/")
OPENSFX = ("openttd-opensfx", GAMES + "openttd/baseset/opensfx/opensfx.cat")
HOMEDECOR = ("minetest-mod-homedecor", GAMES + "minetest/mods/homedecor/")

# prompt, level (dBFS, RMS of the sound's loud half), gap before it (s), and its parts:
# (package, path, member, first second, last second, pause before the part). The levels keep the
# order of a real house: thunder and applause loud, a cat and a snore quiet.
SCENE = [
    ("a rooster crowing", -24, 2.5, [(*SCRATCH, "Animal/Rooster.wav", 0, None, 0)]),
    ("a dog barking", -22, 3.5, [(*ZERO_AD, "audio/ambient/building/amb_port_10.ogg", 1.8, 6.8, 0)]),
    ("footsteps on gravel", -28, 3.5, [
        (*ZERO_AD, "audio/actor/human/movement/Footsteps/Footstep_Gravel_Walking.ogg", 0, None, 0),
        (*ZERO_AD, "audio/actor/human/movement/Footsteps/Footstep_Rock_Walking.ogg", 0, None, 0)]),
    ("a doorbell ringing", -24, 3.5, [
        (*HOMEDECOR, "homedecor_electrical/sounds/homedecor_doorbell.ogg", 0, None, 0),
        (*HOMEDECOR, "homedecor_electrical/sounds/homedecor_doorbell.ogg", 0, None, 0.4)]),
    ("a person speaking", -25, 3.5, [("espeak-ng", "", "Good morning. The parcel is at the front door. "
                                      "Could you bring it in, please?", 0, None, 0)]),
    ("glass breaking", -22, 3.5, [(*MINETEST, "default_break_glass.1.ogg", 0, None, 0),
                                  (*MINETEST, "default_break_glass.3.ogg", 0, None, 0.1),
                                  (*MINETEST, "default_break_glass.2.ogg", 0, None, 0.2)]),
    ("a toilet flushing", -25, 3.5, [(*HOMEDECOR, "homedecor_bathroom/sounds/homedecor_toilet_flush.ogg", 0, None, 0)]),
    ("a cat meowing", -27, 3.5, [(*SCRATCH, "Animal/Kitten.wav", 0, None, 0),
                                 (*SCRATCH, "Animal/Cat.mp3", 0, None, 0.6),
                                 (*SCRATCH, "Animal/Kitten.wav", 0, None, 0.7)]),
    ("a person snoring", -28, 3.5, [("plee-the-bear-data", GAMES + "plee-the-bear/sound/plee/", "snore.ogg", 0, None, 0)]),
    ("a drum kit playing", -24, 3.5, [("sonic-pi-samples", "./usr/share/sonic-pi/samples/", "loop_mika.flac", 0, 4.5, 0)]),
    ("a helicopter flying", -24, 3.5, [(*OPENSFX, "24", 0, None, 0)]),
    ("a steam train whistle", -22, 3.5, [(*OPENSFX, "4", 0, None, 0)]),
    ("a car horn honking", -22, 3.5, [(*STK, "horn.ogg", 0, None, 0), (*STK, "horn.ogg", 0, None, 0.25),
                                      (*STK, "horn.ogg", 0, None, 0.5)]),
    ("people applauding", -21, 3.5, [(*STK, "gp_end.ogg", 5.2, 10.2, 0)]),
    ("thunder", -19, 3.5, [(*STK, "thunder.ogg", 0, None, 0)]),
    ("rain", -26, 3.5, [(*STK, "rain.ogg", 0, None, 0), (*STK, "rain.ogg", 0, None, -0.8)]),
]
TAIL_S = 3.0
FLOOR_DB = -62  # a quiet room: a microphone never hears digital silence, but no class should hear it
FADE_S = 0.03   # long enough that a cut does not click, short enough to keep an attack
CEILING = 0.89  # -1 dBFS: room for the overshoot of the Vorbis encoder


def unpack(deb, paths, folder):
    """Some files of a package, straight to disk: one archive of 0ad-data alone is 1.3 GB."""
    tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder, *paths], stdin=tar.stdout, check=True)
    tar.stdout.close()
    tar.wait()


def from_cat(cat, index):
    """Sound `index` of an OpenTTD .cat file: a table of (offset, length), then name and RIFF data.

    One sound of OpenSFX ends in half a sample; ffmpeg drops it with a message.
    """
    offset, length = struct.unpack_from("<II", cat, 8 * index)
    start = (offset & 0x7FFFFFFF) + 1 + cat[offset & 0x7FFFFFFF]
    riff_length = 8 + struct.unpack_from("<I", cat, start + 4)[0]
    return cat[start:start + min(length, riff_length)]


def speech(text):
    command = ["espeak-ng", "-v", "en-gb", "-s", "150", "--stdout", text]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def file_of(path, name):
    """The package file that holds a sound: itself, or the archive it is in."""
    return path + name if path.endswith("/") else path


class Packages:
    """The scene's files, unpacked once into a folder."""

    def __init__(self, debs, folder):
        self.folder, wanted = pathlib.Path(folder), {}
        for *_, parts in SCENE:
            for package, path, name, *_ in parts:
                if package != "espeak-ng":
                    wanted.setdefault(package, set()).add(file_of(path, name))
        for package, paths in wanted.items():
            deb = next(pathlib.Path(debs).glob(f"{package}_*.deb"), None)
            if deb is None:
                sys.exit(f"no {package}_*.deb in {debs}")
            unpack(deb, sorted(paths), folder)

    def read(self, package, path, name):
        if package == "espeak-ng":
            return speech(name)
        file = self.folder / file_of(path, name)
        if path.endswith(".zip"):
            return zipfile.ZipFile(file).read(name)
        return from_cat(file.read_bytes(), int(name)) if path.endswith(".cat") else file.read_bytes()


def decode(data):
    """Any audio file to mono float at RATE."""
    command = ["ffmpeg", "-v", "error", "-i", "-", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout, np.float32)


def trim(x):
    """Cuts leading and trailing stretches more than 45 dB below the peak, so that the truth is tight."""
    loud = np.flatnonzero(np.abs(x) > np.abs(x).max() * 10 ** (-45 / 20))
    return x[loud[0]:loud[-1] + 1]


def fade(x, seconds=FADE_S):
    x, n = x.copy(), min(int(seconds * RATE), len(x) // 2)
    ramp = np.sin(np.linspace(0, np.pi / 2, n)) ** 2
    x[:n] *= ramp
    x[-n:] *= ramp[::-1]
    return x


def loud_rms(x):
    """RMS of the louder half of 50 ms frames: pauses inside a sound do not count."""
    frames = x[:len(x) // 2400 * 2400].reshape(-1, 2400)
    power = np.sort((frames ** 2).mean(1))
    return np.sqrt(power[len(power) // 2:].mean())


def part(packages, package, path, name, first, last):
    x = decode(packages.read(package, path, name))
    x = trim(x[int(first * RATE):None if last is None else int(last * RATE)])
    return fade(x / loud_rms(x))


def sound(packages, parts, level_db):
    mix = np.zeros(0)
    for *source, pause in parts:
        # A negative pause is an overlap: the fades of both make the cross-fade.
        x = part(packages, *source)
        if pause < 0:
            n = int(-pause * RATE)
            x = fade(x, -pause)
            mix[-n:] *= np.cos(np.linspace(0, np.pi / 2, n)) ** 2
        start = max(0, len(mix) + int(pause * RATE))
        mix = np.pad(mix, (0, start + len(x) - len(mix)))
        mix[start:] += x
    mix = mix * 10 ** (level_db / 20)
    return mix * min(1, CEILING / np.abs(mix).max())


def room(samples):
    """Brown-ish noise with a fixed seed, as of a room with a far-off fan."""
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / RATE)
    noise = np.fft.irfft(spectrum / np.maximum(hertz, 40), samples)
    return noise / np.sqrt((noise ** 2).mean()) * 10 ** (FLOOR_DB / 20)


def origin(parts):
    names = [f"{p}:{n}" if p != "espeak-ng" else p for p, _, n, *_ in parts]
    return " + ".join(dict.fromkeys(names))


def build(packages):
    pieces, truth, now = [], [], 0
    for prompt, level_db, gap, parts in SCENE:
        now += int(gap * RATE)
        x = sound(packages, parts, level_db)
        pieces.append((now, x))
        truth.append((now / RATE, (now + len(x)) / RATE, prompt, origin(parts)))
        now += len(x)
    mix = room(now + int(TAIL_S * RATE))
    for start, x in pieces:
        mix[start:start + len(x)] += x
    return mix, truth


def main():
    with tempfile.TemporaryDirectory() as folder:
        mix, truth = build(Packages(sys.argv[1], folder))
    pcm = (np.clip(mix, -1, 1) * 32767).round().astype("<i2").tobytes()
    subprocess.run(["oggenc", "-Q", "-r", "-R", str(RATE), "-C", "1", "-B", "16", "-q", "5", "-s", "1",
                    "-t", "clapd demo", "-c", "LICENSE=CC-BY-SA-4.0, credits in CREDITS.md",
                    "-o", str(HERE / "demo.ogg"), "-"], input=pcm, check=True)
    with open(HERE / "demo.csv", "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["start_s", "end_s", "prompt", "source"])
        out.writerows([f"{a:.2f}", f"{b:.2f}", *rest] for a, b, *rest in truth)


if __name__ == "__main__":
    main()
