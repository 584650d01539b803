"""Damaged and hostile checkpoints: each must be refused with a message, within bounds, leaving nothing behind.

It prints a table, and the number of cases that were not refused properly.
"""
import json
import pickle
import shutil
import struct
import zipfile

import torch
from safetensors.torch import load_file, save_file
from transformers import ClapTextModelWithProjection

import checkpoint
import programs

# Refusing takes reading a few kilobytes; a bomb unpacked takes gigabytes and minutes.
RSS_MB, SECONDS = 500, 60
GIB = 1 << 30


def check(claptune, work, seed):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    good, _, _ = checkpoint.build(work / "good", "small", seed, True)
    failed = control(claptune, work, "a sound folder", good, good)
    for name, damage, words in FOLDERS:
        folder = work / name.replace(" ", "-")
        shutil.copytree(good, folder)
        damage(folder)
        failed += attempt(claptune, work, name, folder, folder, words)
    failed += pickled(claptune, work, seed)
    print(f"{failed} cases failed")
    return 1 if failed else 0


def pickled(claptune, work, seed):
    """Damage to a pickle, in both places that hold one: LAION's file, and a folder's pytorch_model.bin."""
    laion, processor, _ = checkpoint.build(work / "laion", "small", seed, True, "laion")
    folder, _, _ = checkpoint.build(work / "bin", "small", seed, True, "bin")
    failed = control(claptune, work, "a sound .pt", laion, processor)
    failed += control(claptune, work, "a sound .bin", folder, folder)
    for name, damage, words in FILES:
        path = work / f"{name.replace(' ', '-')}.pt"
        shutil.copy(laion, path)
        damage(path)
        failed += attempt(claptune, work, f".pt: {name}", path, processor, words)
        damaged = work / f"{name.replace(' ', '-')}.bin"
        shutil.copytree(folder, damaged)
        damage(damaged / "pytorch_model.bin")
        failed += attempt(claptune, work, f".bin: {name}", damaged, damaged, words)
    return failed


def control(claptune, work, name, source, processor):
    """If the sound one is refused, refusals of the others prove nothing."""
    result = programs.run([claptune, "import", source, "--processor", processor, "--out", work / "control"], work / "cache")
    return report(name, [] if result.status == 0 else ["refused: what follows proves nothing"], result)


def attempt(claptune, work, name, source, processor, words):
    out = work / "out" / "bundle"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    faults = []
    command = [claptune, "import", source, "--out", out] + ([] if processor == source else ["--processor", processor])
    try:
        result = programs.run(command, work / "cache", limit_s=SECONDS)
    except TimeoutError as error:
        return report(name, [str(error)])
    if result.status == 0:
        faults.append("accepted")
    if result.status < 0 or result.status == 101 or "panicked" in result.errors:
        faults.append(f"crashed (exit {result.status})")
    faults += [f"message does not say {word!r}" for word in words if word not in result.errors]
    if not result.errors.strip():
        faults.append("no message")
    if list(out.parent.iterdir()):
        faults.append(f"left {[path.name for path in out.parent.iterdir()]}")
    if result.rss_mb > RSS_MB:
        faults.append(f"{result.rss_mb:.0f} MB resident")
    if list(work.glob("**/pwned")):
        faults.append("ran the pickle's code")
    return report(name, faults, result)


def report(name, faults, result=None):
    shown = f"exit {result.status}, {result.seconds:.1f} s, {result.rss_mb:.0f} MB" if result else ""
    print(f"{'FAIL' if faults else 'ok':5}{name:34}{shown}", flush=True)
    for fault in faults:
        print(f"        {fault}")
    if result and result.errors.strip():
        print(f"        says: {' / '.join(result.errors.strip().splitlines())[:300]}")
    return 1 if faults else 0


# Damage to a folder.

def weights(folder):
    return folder / "model.safetensors"


def cut(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:-1000])


def cut_header(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:500])


def huge_header(folder):
    weights(folder).write_bytes(struct.pack("<Q", 1 << 62) + weights(folder).read_bytes()[8:])


def garbled_header(folder):
    data = bytearray(weights(folder).read_bytes())
    data[8:200] = bytes(b ^ 0x5A for b in data[8:200])
    weights(folder).write_bytes(data)


def header(folder, change):
    data = weights(folder).read_bytes()
    size, = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8:8 + size])
    change(entries)
    text = json.dumps(entries).encode()
    weights(folder).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])


def overlapping(folder):
    def change(entries):
        first, second = [entry for name, entry in entries.items() if name != "__metadata__"][:2]
        second["data_offsets"] = first["data_offsets"]
    header(folder, change)


def beyond_the_end(folder):
    def change(entries):
        entry = next(entry for name, entry in entries.items() if name != "__metadata__")
        entry["data_offsets"] = [GIB * 1000, GIB * 1000 + 4]
    header(folder, change)


def not_a_number(folder):
    state = load_file(weights(folder))
    state["text_projection.linear1.weight"][0, 0] = float("nan")
    save_file(state, weights(folder), {"format": "pt"})


def tensors(folder):
    state = load_file(weights(folder))
    del state["audio_projection.linear1.bias"]
    del state["text_model.pooler.dense.weight"]
    state["text_projection.linear1.weight"] = torch.zeros(5, 7)
    state["text_model.stowaway.weight"] = torch.zeros(3)
    save_file(state, weights(folder), {"format": "pt"})


def edit(**changes):
    """Sets `tower__key` of config.json."""
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            tower, _, name = key.rpartition("__")
            (config[tower] if tower else config)[name] = value
        (folder / "config.json").write_text(json.dumps(config))
    return damage


def text_only(folder):
    config = checkpoint.make_config("small", True).text_config
    for path in (weights(folder), folder / "config.json"):
        path.unlink()
    ClapTextModelWithProjection(config).save_pretrained(folder)


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def extractor(**changes):
    def damage(folder):
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return damage


# A name, the damage, what the message must say so that its reader can act.
FOLDERS = [
    ("safetensors cut short", cut, ["model.safetensors"]),
    ("safetensors cut in its header", cut_header, ["model.safetensors"]),
    ("safetensors with a huge header", huge_header, ["model.safetensors"]),
    ("safetensors garbled", garbled_header, ["model.safetensors"]),
    ("safetensors overlapping", overlapping, ["model.safetensors"]),
    ("safetensors beyond its end", beyond_the_end, ["model.safetensors"]),
    ("a weight is NaN", not_a_number, ["text_projection.linear1.weight"]),
    ("missing, extra, misshapen tensors", tensors, [
        "audio_projection.linear1.bias", "text_model.pooler.dense.weight", "text_projection.linear1.weight",
        "text_model.stowaway.weight"]),
    ("depths contradict", edit(audio_config__depths=[1, 2, 2, 1]), ["layers.2.blocks.1"]),
    ("fusion contradicts", edit(audio_config__enable_fusion=False), ["fusion"]),
    ("text width contradicts", edit(text_config__hidden_size=48), ["text_model.embeddings.word_embeddings.weight"]),
    ("heads do not divide", edit(audio_config__num_attention_heads=[3, 2, 2, 4]), ["heads"]),
    ("no heads", edit(text_config__num_attention_heads=0), ["heads"]),
    ("a million layers", edit(text_config__num_hidden_layers=1_000_000), ["num_hidden_layers"]),
    ("a negative depth", edit(audio_config__depths=[1, -2, 1, 1]), ["depths"]),
    ("a vocabulary of 10^12", edit(text_config__vocab_size=10**12), ["vocab_size"]),
    ("an unknown activation", edit(audio_config__hidden_act="mystery"), ["hidden_act", "mystery"]),
    ("an unknown key", edit(audio_config__enable_mystery=True), ["enable_mystery"]),
    ("not CLAP", edit(model_type="bert"), ["model_type", "bert"]),
    ("a text-only model", text_only, ["clap_text_model"]),
    ("config.json missing", without("config.json"), ["config.json"]),
    ("weights missing", without("model.safetensors"), ["model.safetensors"]),
    ("tokenizer missing", without("tokenizer.json", "vocab.json", "merges.txt"), ["tokenizer.json"]),
    ("preprocessor missing", without("preprocessor_config.json"), ["preprocessor_config.json"]),
    ("a hop of nothing", extractor(hop_length=0), ["hop_length"]),
    ("ten years of sound", extractor(max_length_s=10**8, nb_max_samples=48_000 * 10**8), ["max_length_s"]),
    ("the other front end", extractor(truncation="rand_trunc"), ["truncation"]),
]


# Damage to LAION's file: a zip of a pickle and the tensors' bytes.

def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, contents, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def pickle_name(contents):
    return next(name for name in contents if name.endswith("data.pkl"))


def zip_bomb(path):
    """The pickle is two gibibytes of nothing, packed into 2 MB."""
    name = pickle_name(members(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive, archive.open(name, "w", force_zip64=True) as out:
        for _ in range(2 * GIB >> 24):
            out.write(bytes(1 << 24))


def tensor_bomb(path):
    """Every tensor's bytes are two gibibytes of nothing."""
    contents = members(path)
    first = next(name for name in contents if "/data/" in name)
    del contents[first]
    rewrite(path, contents)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive, archive.open(first, "w", force_zip64=True) as out:
        for _ in range(2 * GIB >> 24):
            out.write(bytes(1 << 24))


def pickle_bomb(path):
    """A list of the same list twice, sixty deep: a kilobyte that stands for 2^60 entries."""
    contents = members(path)
    # "list of: mark, item i twice, append all; remember as item i + 1".
    doubled = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b"."
    contents[pickle_name(contents)] = doubled
    rewrite(path, contents)


def deep_pickle(path):
    contents = members(path)
    contents[pickle_name(contents)] = b"\x80\x02" + b"]" * 2_000_000 + b"a" * 1_999_999 + b"."
    rewrite(path, contents)


class Run:
    """What a pickle's reader would do if it called what it is told to."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def hostile_pickle(path):
    contents = members(path)
    contents[pickle_name(contents)] = pickle.dumps({"state_dict": Run(path.parent / "pwned")}, protocol=2)
    rewrite(path, contents)


def huge_tensor(path):
    """A tensor of 2^40 numbers that overlap: a stride of nothing over one stored number."""
    torch.save({"state_dict": {"module.audio_branch.bn0.weight": torch.zeros(1).expand(1 << 40)}}, path)


def cut_file(path):
    path.write_bytes(path.read_bytes()[:-5000])


def text_branch_only(path):
    saved = torch.load(path)
    state = saved.get("state_dict", saved)
    without_audio = {name: value for name, value in state.items() if "audio" not in name}
    torch.save({"state_dict": without_audio} if "state_dict" in saved else without_audio, path)


FILES = [
    ("cut short", cut_file, []),
    ("zip bomb", zip_bomb, []),
    ("tensor bomb", tensor_bomb, []),
    ("pickle bomb", pickle_bomb, []),
    ("deep pickle", deep_pickle, []),
    ("that runs code", hostile_pickle, []),
    ("with a huge tensor", huge_tensor, []),
    ("of a text tower", text_branch_only, ["audio"]),
    ("that is text", lambda path: path.write_text("not a checkpoint\n" * 100), []),
    ("that is empty", lambda path: path.write_bytes(b""), []),
]
