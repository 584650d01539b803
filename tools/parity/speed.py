#!/usr/bin/env python3
"""How long both towers take on one core, for one 10 s window and for one text: clapd, onnxruntime and PyTorch, turn by turn.

    speed.py --clapd PATH --work DIR [--claptune PATH] [--size full|small|base] [--unfused] [--seed 1] [--core 0]
             [--rounds 5] [--avx2]

Builds a seeded checkpoint, imports it in f32 and in int8 (minutes), exports it as ONNX, quantises that with a scale a
channel for onnxruntime's dynamic int8, and then lets all run in turns on the same pinned core, so that a slower minute of the
machine slows all of them. What an earlier run has left in DIR/speed-SIZE-SEED is used again; then claptune is not needed.
A turn is the median of up to 15 runs, as `clapd bench` does it; the table shows the median and the spread of the turns, and
the ratio to onnxruntime, turn by turn. onnxruntime runs the exported graphs, and their embeddings are checked against
PyTorch's first: a fast wrong graph is no yardstick. `--avx2` hides from all of them that the CPU has more than AVX2 (avx2.c).
clapd should be a release build. The environment: tools/parity/setup.sh.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

# What `clapd bench` takes as a turn, and how long it goes on taking runs, in seconds.
RUNS, PATIENCE = 15, 8
# Also clapd's: twelve tokens.
TEXT = "a smoke alarm in the distance and a man speaks"
TOWERS = {"audio": "one 10 s window", "text": "one text"}
# Of a tower's embedding by two f32 engines: they add in another order.
TOLERANCE = 2e-5


def main():
    arguments = parse()
    # Before any library starts its threads; what is started here inherits it.
    os.sched_setaffinity(0, {arguments.core})
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    if arguments.avx2:
        hide_more_than_avx2(arguments.work)
    engines = prepare(arguments)
    turns = {name: {tower: [] for tower in TOWERS} for name in engines}
    for turn in range(arguments.rounds):
        for name, measure in engines.items():
            for tower, milliseconds in measure().items():
                turns[name][tower].append(milliseconds)
        shown = ", ".join(f"{name} {' + '.join(f'{times[t][-1]:.1f}' for t in TOWERS)} ms" for name, times in turns.items())
        print(f"turn {turn + 1} (audio + text): {shown}", flush=True)
    for tower, what in TOWERS.items():
        print(f"\n{tower + ', ' + what:24}{'median ms':>10}{'min':>9}{'max':>9}{'of onnxruntime f32':>20}{'of its int8':>13}")
        for name, times in turns.items():
            mine = times[tower]
            ratios = [statistics.median(a / b for a, b in zip(mine, turns[peer][tower]))
                      for peer in ("onnxruntime f32", "onnxruntime int8")]
            print(f"{name:24}{statistics.median(mine):10.1f}{min(mine):9.1f}{max(mine):9.1f}{ratios[0]:19.2f}x{ratios[1]:12.2f}x")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claptune", type=pathlib.Path)
    parser.add_argument("--clapd", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--size", default="full")
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--avx2", action="store_true")
    return parser.parse_args()


def hide_more_than_avx2(work):
    """Starts this program anew with avx2.c before all libraries, unless that is what happened."""
    library = work.resolve() / "avx2.so"
    if str(library) in os.environ.get("LD_PRELOAD", ""):
        return
    work.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(__file__).with_name("avx2.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.argv])


def prepare(arguments):
    """For each engine, a function that takes a turn and gives milliseconds by tower."""
    import programs

    form = f"speed-{arguments.size}{'-unfused' if arguments.unfused else ''}-{arguments.seed}"
    work = arguments.work.resolve() / form
    work.mkdir(parents=True, exist_ok=True)
    source, graphs = make(arguments, work), work / "onnx"
    inputs = {"audio": window(source), "text": tokens(source)}
    torch_runs = pytorch(source, inputs)
    full = {tower: onnxruntime(graphs / f"{tower}.onnx", inputs[tower]) for tower in TOWERS}
    for tower in TOWERS:
        worst = np.abs(unit(full[tower]()) - unit(torch_runs[tower]())).max()
        print(f"{tower}: onnxruntime's embedding differs from PyTorch's by {worst:.1e} at most")
        if not worst <= TOLERANCE:
            sys.exit("the exported graph computes something else")
    narrow = {tower: onnxruntime(graphs / f"{tower}-int8.onnx", inputs[tower]) for tower in TOWERS}

    def clapd(bundle):
        report, = programs.lines([arguments.clapd, "bench", "--bundle", bundle, "--json"], work)
        return {"audio": report["audio_ms"], "text": report["text_ms"]}, report["kernel"]

    def turn(runs):
        return lambda: {tower: median_ms(run) for tower, run in runs.items()}

    print(f"clapd's kernel: {clapd(work / 'int8')[1]}; the text has {inputs['text'][0].shape[1]} tokens", flush=True)
    return {"clapd f32": lambda: clapd(work / "f32")[0], "onnxruntime f32": turn(full), "PyTorch f32": turn(torch_runs),
            "clapd int8": lambda: clapd(work / "int8")[0], "onnxruntime int8": turn(narrow)}


def make(arguments, work):
    """The checkpoint, its bundles and its graphs: what is not there yet. Gives the checkpoint's folder."""
    import checkpoint
    import programs

    def once(path, build):
        if not path.exists():
            # Under another name until it is whole.
            partial = path.with_name("partial-" + path.name)
            shutil.rmtree(partial, ignore_errors=True)
            build(partial)
            partial.rename(path)

    def claptune(*words):
        if not arguments.claptune:
            sys.exit(f"{work} does not have all yet: --claptune is needed")
        programs.checked([arguments.claptune, *words], work)

    source, graphs = work / "checkpoint", work / "onnx"
    once(source, lambda to: checkpoint.build(to, arguments.size, arguments.seed, not arguments.unfused))
    for precision in ("f32", "int8"):
        once(work / precision, lambda to: claptune("import", source, "--out", to, "--precision", precision))
    once(graphs, lambda to: claptune("export", source, "--onnx", to))
    for tower in TOWERS:
        once(graphs / f"{tower}-int8.onnx", lambda to: quantize(graphs / f"{tower}.onnx", to))
    return source


def quantize(graph, to):
    """Writes the graph with int8 weights, a scale a channel, and activations quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    weights = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        # [1, k, n] says the same as [k, n], and only the latter may have a scale a channel.
        while tensor.name in weights and len(tensor.dims) > 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
    plain = to.with_name("plain.onnx")
    onnx.save(model, plain)
    quantize_dynamic(plain, to, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    plain.unlink()


def window(source):
    """Ten seconds of noise: the tower takes as long for any sound."""
    from transformers import ClapFeatureExtractor

    noise = np.random.default_rng(1).normal(0, 0.1, 480_000).astype(np.float32)
    features = ClapFeatureExtractor.from_pretrained(source)(noise, sampling_rate=48_000, return_tensors="np")
    return features["input_features"], features["is_longer"]


def tokens(source):
    import checkpoint

    encoded = checkpoint.load_tokenizer(source)(TEXT, return_tensors="np")
    return encoded["input_ids"], encoded["attention_mask"]


def pytorch(source, inputs):
    import torch
    from transformers import ClapModel

    torch.set_num_threads(1)
    model = ClapModel.from_pretrained(source).eval()
    features, is_longer, ids, mask = map(torch.from_numpy, (*inputs["audio"], *inputs["text"]))

    def run(embed):
        with torch.inference_mode():
            return embed().pooler_output.numpy()

    return {"audio": lambda: run(lambda: model.get_audio_features(input_features=features, is_longer=is_longer)),
            "text": lambda: run(lambda: model.get_text_features(input_ids=ids, attention_mask=mask))}


def onnxruntime(graph, inputs):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Quantised graphs come with many remarks.
    options.log_severity_level = 3
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feed = {}
    for given, value in zip(session.get_inputs(), inputs):
        # The exported graph may ask for one of the four equal copies that the extractor makes for a fused model.
        if value.ndim == 4 and isinstance(given.shape[1], int):
            value = value[:, :given.shape[1]]
        feed[given.name] = np.ascontiguousarray(value)
    return lambda: session.run(None, feed)[0]


def unit(embedding):
    vector = embedding[0].astype(np.float64)
    return vector / np.linalg.norm(vector)


def median_ms(run):
    run()
    times, begun = [], time.perf_counter()
    while len(times) < RUNS and (not times or time.perf_counter() - begun < PATIENCE):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
