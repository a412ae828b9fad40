#!/usr/bin/env python3
"""Compares two builds of qeval, say for two architectures, on the same checkpoints: what integer arithmetic computes must
be the same to the bit (the hashes of all logits, task by task), what float and simulated arithmetic compute within a
ten-thousandth per token. Standard library only.

usage: compare_programs.py QEVAL OTHER [--run-other COMMAND] [--model GGUF --calibration TEXT]

--run-other is what OTHER is run by, for instance "qemu-aarch64-static -L SYSROOT". --model is one more checkpoint.
Prints "ok   case" or "FAIL case" with the differences, and fails if any case does.
"""

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDENS = ROOT / "tests" / "goldens"
LIMIT = 1e-4  # of a token's log-probability
failed = []


def report(case, wrong, text):
    print(f"{'FAIL' if wrong else 'ok  '} {case}: {text}", flush=True)
    if wrong:
        failed.append(case)


def run(command, arguments, text=None, environment=None):
    result = subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, check=False,
                            env={**os.environ, **(environment or {})})
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise RuntimeError(f"{' '.join(map(str, arguments[:2]))}: {lines[-1] if lines else result.returncode}")
    return result.stdout


def score(command, model, arithmetic, requests, environment=None):
    output = run(command, ["score", "-m", model, "--arithmetic", arithmetic], requests, environment)
    return [value for line in output.splitlines() for value in json.loads(line)["token_logprobs"]]


def made_up_requests(model):
    words = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    draw = random.Random(7)
    lengths = [1, 2, 7, 12, 33]
    return "".join(json.dumps({"id": i, "context_ids": [draw.randrange(words) for _ in range(n)],
                               "continuation_ids": [draw.randrange(words) for _ in range(8)]}) + "\n"
                   for i, n in enumerate(lengths))


def compare_scores(case, first, other, model, arithmetic, requests, limit):
    ours = score(first, model, arithmetic, requests)
    theirs = score(other, model, arithmetic, requests)
    most = max((abs(a - b) for a, b in zip(ours, theirs)), default=float("nan"))
    report(case, len(ours) != len(theirs) or not most <= limit,
           f"{len(ours)} tokens, {sum(a == b for a, b in zip(ours, theirs))} the same, off by {most:.1e} at most")


def hashes(command, model, tasks, limit, environment=None):
    with tempfile.TemporaryDirectory() as folder:
        run(command, ["eval", "-m", model, "-t", tasks, "--limit", limit, "--arithmetic", "integer", "-o", folder],
            environment=environment)
        results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return {task: result["logits_hash"] for task, result in results["tasks"].items()}


def compare_hashes(case, first, other, model, tasks, limit):
    """By the other's best kernels, by those without dot products, and by the portable ones."""
    want = hashes(first, model, tasks, limit)
    kernels = re.search(r"kernels: (\w+)", run(other, ["--version"])).group(1)
    for path in (None, kernels, "portable"):
        environment = {"QEVAL_CPU": path} if path else None
        got = hashes(other, model, tasks, limit, environment)
        report(f"{case}, {path or 'best kernels'}", got != want or not want,
               " ".join(f"{task} {got.get(task)}" + ("" if got.get(task) == value else f" instead of {value}")
                        for task, value in want.items()))


def guard(case, compare, *arguments):
    try:
        compare(case, *arguments)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        report(case, True, error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qeval")
    parser.add_argument("other")
    parser.add_argument("--run-other", default="")
    parser.add_argument("--model")
    parser.add_argument("--calibration", default=ROOT / "examples" / "calibration.txt")
    options = parser.parse_args()
    first = [os.path.abspath(options.qeval)]
    other = [*shlex.split(options.run_other), os.path.abspath(options.other)]

    for model in sorted((GOLDENS / "huggingface").iterdir()):
        guard(f"float {model.name}", compare_scores, first, other, model, "float", made_up_requests(model), LIMIT)
    for model in sorted((GOLDENS / "mobilequant").iterdir()):
        if (model / "act_dict.json").exists() and (model / "default_qcfg.json").exists():
            requests = made_up_requests(model)
            guard(f"fake {model.name}", compare_scores, first, other, model, "fake", requests, LIMIT)
            guard(f"integer {model.name}", compare_scores, first, other, model, "integer", requests, 1e-6)

    with tempfile.TemporaryDirectory() as folder:
        # A larger model takes an emulator a tenth of a second per token.
        small = (GOLDENS / "models" / "stories260K", ("w8a8", "w4a8"), "sample", "8")
        large = (options.model, ("w8a8",), "sample_qa", "1")
        for base, schemes, tasks, limit in (small, large) if options.model else (small,):
            for scheme in schemes:
                case = f"{Path(base).name} {scheme}"
                quantized = Path(folder) / case.replace(" ", "-")
                guard(f"{case}, made by the first", lambda _: run(
                    first, ["quantize", "-m", base, "--method", "rtn", "--scheme", scheme, "--calibration",
                            options.calibration, "--samples", "4", "--sequence-length", "64", "-o", quantized]))
                guard(f"hashes of {case}", compare_hashes, first, other, quantized, tasks, limit)
    print(f"{len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
