#!/usr/bin/env python3
"""Does ONNX Runtime compute what we do? usage: check_onnx_export.py QEVAL CHECKPOINT [options]

Exports the quantized checkpoint with `qeval export --format onnx`, scores windows of token ids through ONNX Runtime and
through `qeval score --arithmetic fake`, and compares at every position: the share of equal arg-max, and the mean absolute
difference of the scored token's log-probability. Fails below --top1 or above --difference. `--against integer` compares
with integer-only arithmetic instead (usually with looser limits). `--noise` shows our own noise beside it: a
second run of qeval with QEVAL_CPU=portable, whose last bits differ.

The ids are read from --ids (a JSON array per line), from input_ids of --safetensors, or drawn at random (--seed).
Where Python has no onnxruntime, prints a line that begins with "skip" and ends with success.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnxruntime
except ImportError as missing:
    print(f"skip: ONNX Runtime cannot be imported ({missing})")
    sys.exit(0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qeval")
    parser.add_argument("checkpoint")
    parser.add_argument("--ids", help="a JSON array of token ids per line")
    parser.add_argument("--safetensors", help="read input_ids of this file")
    parser.add_argument("--windows", type=int, default=4, help="windows at most (default 4)")
    parser.add_argument("--length", type=int, default=128, help="tokens per window at most (default 128)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--against", default="fake", choices=["fake", "integer"])
    parser.add_argument("--top1", type=float, default=0.99)
    parser.add_argument("--difference", type=float, default=0.01)
    parser.add_argument("--optimize", action="store_true", help="let ONNX Runtime fuse nodes (its integer kernels)")
    parser.add_argument("--noise", action="store_true", help="also compare qeval with itself on another CPU path")
    parser.add_argument("--keep", help="export into this folder and keep it")
    return parser.parse_args()


def vocabulary(session):
    return session.get_outputs()[0].shape[2]


def read_ids(options, session):
    if options.ids:
        with open(options.ids, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    elif options.safetensors:
        with open(options.safetensors, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(size))["input_ids"]
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            rows = np.frombuffer(file.read(end - begin), dtype=np.int64).reshape(entry["shape"]).tolist()
    else:
        random = np.random.default_rng(options.seed)
        rows = random.integers(0, vocabulary(session), (options.windows, options.length)).tolist()
    return [row[: options.length] for row in rows[: options.windows]]


def score_ours(options, rows, arithmetic, environment=None):
    """Per window the log-probabilities of tokens 1 … and the arg-max at each place."""
    requests = "".join(
        json.dumps({"id": i, "context_ids": row[:1], "continuation_ids": row[1:]}) + "\n" for i, row in enumerate(rows)
    )
    command = [options.qeval, "score", "-m", options.checkpoint, "--arithmetic", arithmetic]
    result = subprocess.run(
        command, input=requests, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if result.returncode:
        sys.exit(f"FAILED: {result.stderr.strip()}")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [(np.array(line["token_logprobs"]), np.array(line["top1"])) for line in lines]


def score_theirs(session, rows):
    scores = []
    for row in rows:
        (logits,) = session.run(["logits"], {"input_ids": np.array([row[:-1]], dtype=np.int64)})
        logits = logits[0].astype(np.float64)
        largest = logits.max(axis=-1, keepdims=True)
        normed = logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
        scores.append((normed[np.arange(len(row) - 1), row[1:]], logits.argmax(axis=-1)))
    return scores


def compare(a, b):
    agree = np.concatenate([x[1] == y[1] for x, y in zip(a, b)])
    difference = np.concatenate([np.abs(x[0] - y[0]) for x, y in zip(a, b)])
    sums = [sum(float(x[0].sum()) for x in side) / len(agree) for side in (a, b)]
    return agree.mean(), difference.mean(), difference.max(), len(agree), sums


def report(what, compared):
    top1, mean, largest, count, sums = compared
    print(
        f"{what}: {count} positions, arg-max agrees at {100 * top1:.2f} %, log-probabilities differ by {mean:.2e} on "
        f"average, {largest:.2e} at most; mean log-likelihoods {sums[0]:.6f} and {sums[1]:.6f}"
    )


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or os.path.join(scratch, "onnx")
        command = [options.qeval, "export", "-m", options.checkpoint, "--format", "onnx", "-o", folder]
        exported = subprocess.run(command, capture_output=True, text=True, check=False)
        if exported.returncode:
            sys.exit(f"FAILED: {exported.stderr.strip()}")
        try:
            import onnx

            onnx.checker.check_model(os.path.join(folder, "model.onnx"), full_check=True)
        except ImportError as missing:
            print(f"note: the model is not checked against ONNX's schema ({missing})")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = os.cpu_count()
        if not options.optimize:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), settings, providers=["CPUExecutionProvider"]
        )
        rows = read_ids(options, session)
        theirs = score_theirs(session, rows)
    ours = score_ours(options, rows, options.against)
    compared = compare(theirs, ours)
    report(f"ONNX Runtime {onnxruntime.__version__} against {options.against}", compared)
    if options.noise:
        other = score_ours(options, rows, options.against, {"QEVAL_CPU": "portable"})
        report(f"{options.against} on the portable path against {options.against}", compare(other, ours))
    if compared[0] < options.top1 or compared[1] > options.difference:
        print(f"FAILED: wanted at least {100 * options.top1:g} % and at most {options.difference:g}")
        return 1
    print(f"ok: {options.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
