#!/usr/bin/env python3
"""How long the audio tower takes for one 10 s window on one core: clapd, onnxruntime and PyTorch, turn by turn.

    speed.py --claptune PATH --clapd PATH --work DIR [--size full|small|base] [--unfused] [--seed 1] [--core 0] [--rounds 5]
             [--int8]

Builds a seeded checkpoint, imports it (f32), exports it as ONNX, and then lets the three run in turns on the same pinned
core, so that a slower minute of the machine slows all of them. A turn is the median of 15 runs, as `clapd bench` does
it; the table shows the median and the spread of the turns, and the ratio to onnxruntime of the same precision, turn by
turn. onnxruntime runs the exported graph, and its embedding is checked against PyTorch's first: a fast wrong graph is no
yardstick. `--int8` adds clapd's int8 import (minutes) and onnxruntime's dynamic int8, a scale a channel.
claptune and clapd should be release builds. The environment: tools/parity/setup.sh.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import sys
import time

import numpy as np

# What `clapd bench` takes as a turn.
RUNS = 15


def main():
    arguments = parse()
    # Before any library starts its threads; what is started here inherits it.
    os.sched_setaffinity(0, {arguments.core})
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    engines = prepare(arguments)
    turns = {name: [] for name in engines}
    for turn in range(arguments.rounds):
        for name, measure in engines.items():
            turns[name].append(measure())
        print(f"turn {turn + 1}:", ", ".join(f"{name} {times[-1]:.1f} ms" for name, times in turns.items()), flush=True)
    print(f"\n{'':18}{'median ms':>10}{'min':>9}{'max':>9}{'of onnxruntime':>16}")
    for name, times in turns.items():
        peer = "onnxruntime int8" if name.endswith("int8") else "onnxruntime"
        ratio = statistics.median(a / b for a, b in zip(times, turns[peer]))
        print(f"{name:18}{statistics.median(times):10.1f}{min(times):9.1f}{max(times):9.1f}{ratio:15.2f}x")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claptune", type=pathlib.Path, required=True)
    parser.add_argument("--clapd", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--size", default="full")
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def prepare(arguments):
    """A function a engine that takes a turn and returns milliseconds."""
    import checkpoint
    import programs

    work = arguments.work.resolve() / "speed"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    source, processor, model = checkpoint.build(work / "checkpoint", arguments.size, arguments.seed, not arguments.unfused)
    bundle, graphs = work / "bundle", work / "onnx"
    graphs.mkdir()
    programs.checked([arguments.claptune, "import", source, "--out", bundle], work)
    programs.checked([arguments.claptune, "export", source, "--onnx", graphs / "clap.onnx"], work)
    graph, = [path for path in graphs.iterdir() if "audio" in path.name]

    def clapd(bundle):
        report, = programs.lines([arguments.clapd, "bench", "--bundle", bundle, "--json"], work)
        return report["audio_ms"]

    inputs = window(processor)
    torch_run, torch_embedding = pytorch(model, inputs)
    ort_run, ort_embedding = onnxruntime(graph, inputs["input_features"].numpy())
    worst = np.abs(ort_embedding / np.linalg.norm(ort_embedding) - torch_embedding).max()
    print(f"onnxruntime's embedding differs from PyTorch's by {worst:.1e} at most")
    if worst > 2e-5:
        sys.exit("the exported graph computes something else")
    engines = {"clapd": lambda: clapd(bundle), "onnxruntime": lambda: median_ms(ort_run),
               "PyTorch": lambda: median_ms(torch_run)}
    if arguments.int8:
        narrow = work / "bundle-int8"
        programs.checked([arguments.claptune, "import", source, "--out", narrow, "--precision", "int8"], work)
        ort_int8, _ = onnxruntime(quantized(graph), inputs["input_features"].numpy())
        engines |= {"clapd int8": lambda: clapd(narrow), "onnxruntime int8": lambda: median_ms(ort_int8)}
    return engines


def quantized(graph):
    """The graph with int8 weights, a scale a channel, and activations quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    weights = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        # [1, k, n] says the same as [k, n], and only the latter may have a scale a channel.
        while tensor.name in weights and len(tensor.dims) > 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
    plain, out = graph.with_name("audio-plain.onnx"), graph.with_name("audio-int8.onnx")
    onnx.save(model, plain)
    quantize_dynamic(plain, out, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return out


def window(processor):
    """Ten seconds of noise: the towers take as long for any sound."""
    from transformers import ClapFeatureExtractor

    noise = np.random.default_rng(1).normal(0, 0.1, 480_000).astype(np.float32)
    return ClapFeatureExtractor.from_pretrained(processor)(noise, sampling_rate=48_000, return_tensors="pt")


def pytorch(model, inputs):
    import torch

    torch.set_num_threads(1)

    def run():
        with torch.inference_mode():
            return model.get_audio_features(**inputs).pooler_output

    return run, run()[0].double().numpy()


def onnxruntime(graph, features):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    given, = session.get_inputs()
    # The exported graph may ask for one of the four equal copies that the extractor makes for a fused model.
    channels = given.shape[1] if isinstance(given.shape[1], int) else features.shape[1]
    feed = {given.name: np.ascontiguousarray(features[:, :channels])}

    def run():
        return session.run(None, feed)[0]

    return run, run()[0].astype(np.float64)


def median_ms(run):
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
