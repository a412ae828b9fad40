#!/usr/bin/env python3
"""Breaks one chosen line after the other and asks the unit tests whether they see it: a mutant that all tests of its
part pass has survived, and names a weak test. Works in a git worktree of its own (build/mutants, or --tree), so that
the sources beside it stay as they are. Writes the table of docs/reliability.md ("Mutants") with --table.

    tests/tools/mutate.py [--only NAME] [--table] [--tree DIR]
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# Name, what is broken, file, the line's part as it is, as it becomes, test program. Each part stands once in its file.
MUTANTS = [
    ("round", "zero points rounded half up instead of half to even", "quant/grid/quantizer.cc",
     "-std::nearbyint(range.lo / grid.scale)", "-std::floor(range.lo / grid.scale + 0.5F)", "quant_test"),
    ("least-scale", "a grid's least scale a tenth of what it is", "quant/grid/quantizer.h",
     "kMinScale = 1e-5F", "kMinScale = 1e-6F", "quant_test"),
    ("rope", "llama3's mix of frequencies the other way round", "model/rotary.cc",
     "(1 - m) * f / scaling.factor + m * f", "m * f / scaling.factor + (1 - m) * f", "model_test"),
    ("eps", "RMSNorm without eps", "model/kernels/kernels_impl.h",
     "square_root(mean_square + eps), n, y)", "square_root(mean_square + 0 * eps), n, y)", "model_test"),
    ("window", "a window begins one key late", "model/decoder.cc",
     "first_position + 1 - op.window", "first_position + 2 - op.window", "model_test"),
    ("cap", "the cap of scores in front of their scale", "model/float_attention.cc",
     "op.softcap * std::tanh(row[i] * op.scale / op.softcap)", "op.softcap * std::tanh(row[i] / op.softcap) * op.scale",
     "model_test"),
    ("experts", "of equal router logits the higher expert", "model/expert_choice.h",
     "x != y ? x > y : a < b", "x != y ? x > y : a > b", "model_test"),
    ("merge", "of equal merges the rightmost first", "model/tokenizer/bpe_model.cc",
     "a.position > b.position", "a.position < b.position", "model_test"),
    ("nibble", "a packed row's last odd code from the wrong half", "model/checkpoint/code_layout.cc",
     "out[i++] = source[at / 2] & 15U", "out[i++] = static_cast<uint8_t>(source[at / 2] >> 4U)", "model_test"),
    ("header", "a safetensors header may be longer than its file", "model/checkpoint/safetensors.cc",
     "header_bytes > kMaxHeaderBytes || header_bytes > reader.remaining()", "header_bytes > kMaxHeaderBytes", "model_test"),
    ("damping", "GPTQ's damping a tenth", "quant/methods/gptq.h",
     "kGptqDamping = 0.01", "kGptqDamping = 0.001", "quant_test"),
    ("alpha", "SmoothQuant's two exponents exchanged", "quant/methods/smoothquant.cc",
     "std::pow(input_maxima[j], alpha) / std::pow(weight, 1.0F - alpha)",
     "std::pow(input_maxima[j], 1.0F - alpha) / std::pow(weight, alpha)", "quant_test"),
    ("calibrate", "a range's lower end is that of the last sample", "quant/calibrate/calibration.cc",
     "Range{std::min(known->lo, more.lo), std::max(known->hi, more.hi)}",
     "Range{more.lo, std::max(known->hi, more.hi)}", "quant_test"),
    ("shift", "requantization rounds down", "quant/arithmetic/integer/fixed_point.h",
     "(x + (int64_t{1} << (shift - 1))) >> shift", "x >> shift", "quant_test"),
    ("hadamard", "a rotation of half the length", "quant/methods/rotate.cc",
     "1 / std::sqrt(static_cast<double>(matrix_.order))", "0.5 / std::sqrt(static_cast<double>(matrix_.order))", "quant_test"),
    ("rate", "the learning rate falls half as far", "quant/methods/learn/optimizer.cc",
     "(1 + std::cos(std::numbers::pi * done)) / 2", "(1 + std::cos(std::numbers::pi * done / 2)) / 2", "quant_test"),
    ("mcnemar", "the exact test is one-sided", "eval/results/statistics.cc",
     "std::min(1.0L, 2 * tail)", "std::min(1.0L, tail)", "eval_test"),
    ("holm", "Bonferroni's correction instead of Holm's", "eval/results/statistics.cc",
     "static_cast<double>(order.size() - rank) *", "static_cast<double>(order.size()) *", "eval_test"),
    ("kl", "KL divergence weighted by the wrong model", "eval/divergence/token_divergence.cc",
     "kl[lane] += p * ratio", "kl[lane] += q * ratio", "eval_test"),
    ("acceptance", "acceptance from the whole distance instead of half", "eval/divergence/token_divergence.cc",
     "1 - 0.5 * total(distance)", "1 - total(distance)", "eval_test"),
    ("length", "acc_norm by bytes", "eval/results/metrics.cc",
     'if (metric == "acc_norm") lengths = scores.facts.choice_chars',
     'if (metric == "acc_norm") lengths = scores.facts.choice_bytes', "eval_test"),
    ("truncate", "a long request loses one token more", "eval/requests.cc",
     "std::ssize(request.tokens) - (max_length + 1)", "std::ssize(request.tokens) - max_length", "eval_test"),
    ("space", "white space at the end of a context is lost", "eval/requests.cc",
     "request.context.substr(kept.size()) + request.continuation", "request.continuation", "eval_test"),
    ("margin", "equivalence with one bound only", "eval/results/equivalence.cc",
     "-margin < interval->low && interval->high < margin", "-margin < interval->low", "eval_test"),
    ("stop", "a text ends at the last stop string", "eval/engine/generation_run.cc",
     "std::min(text.size(), text.find(stop))", "std::min(text.size(), text.rfind(stop))", "eval_test"),
    ("loop", "a template's loop counts from 0", "eval/engine/jinja/objects.cc",
     'if (name == "index") return Value(index0_ + 1)', 'if (name == "index") return Value(index0_)', "eval_test"),
]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def build(tree, target):
    return run(["cmake", "--build", "build/release", "--target", target], cwd=tree)


def verdict(tree, mutant):
    name, _, file, old, new, program = mutant
    path = tree / file
    source = path.read_text(encoding="utf-8")
    if source.count(old) != 1:
        return "not found", ""
    path.write_text(source.replace(old, new), encoding="utf-8")
    try:
        if build(tree, program).returncode:
            return "does not build", ""
        tested = run([f"build/release/bin/{program}", "--gtest_brief=1", "--gtest_fail_fast"], cwd=tree, timeout=1800)
        killers = re.findall(r"^\[  FAILED  \] ([\w./]+)", tested.stdout, re.M)
        if tested.returncode == 0:
            return "survived", ""
        return "seen", killers[0] if killers else f"ended with {tested.returncode}"
    except subprocess.TimeoutExpired:
        return "seen", "no end"
    finally:
        path.write_text(source, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", help="a mutant's name; may be given several times")
    parser.add_argument("--table", action="store_true", help="print the table of docs/reliability.md")
    parser.add_argument("--tree", type=Path, default=ROOT / "build" / "mutants", help="the worktree (build/mutants)")
    arguments = parser.parse_args()
    tree = arguments.tree
    chosen = [m for m in MUTANTS if not arguments.only or m[0] in arguments.only]
    if not tree.exists():
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), "HEAD"], cwd=ROOT, check=True)
    else:
        subprocess.run(["git", "checkout", "--quiet", "--detach", run(["git", "rev-parse", "HEAD"], cwd=ROOT).stdout.strip()],
                       cwd=tree, check=True)
    subprocess.run(["cmake", "--preset", "release"], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    for program in sorted({m[5] for m in chosen}):
        if build(tree, program).returncode or run([f"build/release/bin/{program}", "--gtest_brief=1"], cwd=tree).returncode:
            sys.exit(f"{program} does not pass without a mutant")
    wrong, rows = 0, []
    for mutant in chosen:
        outcome, test = verdict(tree, mutant)
        wrong += outcome != "seen"
        rows.append(f"| {mutant[1]} (`{mutant[2]}`) | {f'`{test}`' if outcome == 'seen' else outcome} |")
        print(f"{outcome:15} {mutant[0]:12} {test}", flush=True)
    if arguments.table:
        print("\n| broken | first test that fails |\n| --- | --- |\n" + "\n".join(rows))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
