#!/usr/bin/env python3
"""Does transformers compute what we do? usage: check_transformers.py QEVAL MODEL [options]

With --schemes, quantizes the model by round-to-nearest in each of these weight-only schemes first; without, MODEL is
scored as it is. transformers loads the folder (with compressed-tensors, or whatever library its quant_method needs)
in float32, and every token's log-probability must be that of `qeval score` within 2e-3 + 1e-4 * |value|.
--record writes ids, transformers' answers and the hash of the weights that they belong to as JSON, which
tests/quant/checkpoint/packed_test.cc compares with where there is no transformers (tests/goldens/packed).
The ids are read from --ids (a JSON array per line), or drawn at random (--seed).
Where Python lacks a package, prints a line that begins with "skip" and names it, and ends with success.
"""
import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    import compressed_tensors  # noqa: F401  transformers imports it late, and says less
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(f"skip: {missing}")
    sys.exit(0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qeval")
    parser.add_argument("model")
    parser.add_argument("--schemes", help="quantize to these, separated by commas")
    parser.add_argument("--arithmetic", default="", help="of qeval score (default: fake with --schemes, else its own)")
    parser.add_argument("--ids", help="a JSON array of token ids per line")
    parser.add_argument("--windows", type=int, default=2, help="windows at most (default 2)")
    parser.add_argument("--length", type=int, default=64, help="tokens per window at most (default 64)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", help="write what transformers answers to this file")
    parser.add_argument("--keep", help="write quantized folders below this one and keep them")
    return parser.parse_args()


def run(command, text=None):
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"FAIL {' '.join(command[:2])}: {result.stderr.strip()}")
    return result.stdout


def windows(options, vocabulary):
    if options.ids:
        with open(options.ids, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    else:
        draw = random.Random(options.seed)
        rows = [[draw.randrange(vocabulary) for _ in range(options.length)] for _ in range(options.windows)]
    return [row[:options.length] for row in rows[:options.windows]]


def ours(options, folder, arithmetic, rows):
    requests = "".join(json.dumps({"id": i, "context_ids": row[:1], "continuation_ids": row[1:]}) + "\n"
                       for i, row in enumerate(rows))
    given = ["--arithmetic", arithmetic] if arithmetic else []
    answers = [json.loads(line) for line in run([options.qeval, "score", "-m", folder, *given], requests).splitlines()]
    return [value for answer in sorted(answers, key=lambda a: a["id"]) for value in answer["token_logprobs"]]


def theirs(model, rows):
    values = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row])
            logs = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
            values += logs.gather(1, ids[0, 1:, None])[:, 0].tolist()
    return values


def record(options, name, folder, rows, values):
    known = {}
    if os.path.exists(options.record):
        with open(options.record, encoding="utf-8") as file:
            known = json.load(file)
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    known[name] = {"weights_sha256": digest, "input_ids": rows, "token_logprobs": values}
    with open(options.record, "w", encoding="utf-8") as file:
        file.write(json.dumps(known, separators=(",", ":")).replace("},", "},\n") + "\n")


def compare(options, name, folder, arithmetic):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = windows(options, model.config.vocab_size)
    got, want = ours(options, folder, arithmetic, rows), theirs(model, rows)
    differences = [abs(a - b) for a, b in zip(got, want)]
    if options.record:
        record(options, name.split()[-1], folder, rows, want)
    good = len(got) == len(want) > 0 and all(d <= 2e-3 + 1e-4 * abs(w) for d, w in zip(differences, want))
    size = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    print(f"{'ok  ' if good else 'FAIL'} {name}: {len(got)} log-probabilities, largest difference "
          f"{max(differences, default=float('nan')):.2e}, mean {sum(differences) / max(1, len(differences)):.2e}, "
          f"folder {size / 1e6:.1f} MB", flush=True)
    return good


def main():
    options = arguments()
    if not options.schemes:
        return 0 if compare(options, options.model, options.model, options.arithmetic) else 1
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        for scheme in options.schemes.split(","):
            folder = os.path.join(options.keep or temporary, scheme)
            run([options.qeval, "quantize", "-m", options.model, "--method", "rtn", "--scheme", scheme, "-o", folder])
            good = compare(options, f"{os.path.basename(options.model)} {scheme}", folder,
                           options.arithmetic or "fake") and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
