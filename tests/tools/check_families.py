#!/usr/bin/env python3
"""Compare qeval with the goldens of the families of models: tests/goldens/architectures (float, by transformers) and
tests/goldens/simulated (float and fake-quantized, ranges and points, by two independent programs), and of quantized files:
tests/goldens/quantized (by the formats' own libraries). Standard library only.

usage: check_families.py QEVAL [--goldens DIR] [--only float|fake|integer|ranges|points|own] [--case NAME]

float, fake, integer: mean |difference of token log-probabilities| and share of equal arg-maxima. ranges, points: what `quantize
--method rtn` writes for the model alone, against its act_dict.json and default_qcfg.json. own: the arithmetic that the folder asks for.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile

from check_goldens import score


def close(qeval, folder, expected, arithmetic, limit, least):
    want = expected[arithmetic]
    model = f"{folder}/{expected['model']}" if "model" in expected else folder  # a file in the folder
    got, top = score(qeval, model, expected["input_ids"], arithmetic)
    if len(got) != len(want["logprobs"]):
        return False, f"{len(got)} log-probabilities instead of {len(want['logprobs'])}"
    off = [abs(a - b) for a, b in zip(got, want["logprobs"])]
    mean, agree = sum(off) / len(off), sum(a == b for a, b in zip(top, want["top1"])) / len(top)
    return mean <= limit and agree >= least, f"mean {mean:.1e} limit {limit:.0e} top-1 {100 * agree:.1f}%"


def check_float(qeval, folder, expected, _):
    return close(qeval, folder, expected, "float", 2e-4, 0.99)


def check_fake(qeval, folder, expected, _):
    return close(qeval, folder, expected, "fake", expected["fake"]["limit"], 0.95)


def check_integer(qeval, folder, expected, _):
    """Against the simulation; the 8-bit head alone is worth 0.01."""
    return close(qeval, folder, expected | {"integer": expected["fake"]}, "integer", 0.05, 0.8)


WRITTEN = {}


def quantized(qeval, folder, expected):
    """act_dict.json and default_qcfg.json that `quantize --method rtn` writes for the model alone."""
    if folder in WRITTEN:
        return WRITTEN[folder]
    ids = expected["calibration_ids"]
    with tempfile.TemporaryDirectory() as t:
        os.mkdir(f"{t}/bare")
        for name in os.listdir(folder):
            if name == "config.json" or name.startswith("model"):
                shutil.copy(f"{folder}/{name}", f"{t}/bare/{name}")
        with open(f"{t}/ids.jsonl", "w") as file:
            file.writelines(json.dumps(r) + "\n" for r in ids)
        command = [qeval, "quantize", "-m", f"{t}/bare", "--method", "rtn", "--scheme", folder.rsplit("-", 1)[1],
                   "--calibration-ids", f"{t}/ids.jsonl", "--samples", str(len(ids)), "--sequence-length", str(len(ids[0])),
                   "-o", f"{t}/out"]
        p = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if p.returncode:
            raise RuntimeError(p.stderr.strip()[-300:])
        WRITTEN[folder] = [json.load(open(f"{t}/out/{name}")) for name in ("act_dict.json", "default_qcfg.json")]
    return WRITTEN[folder]


def check_ranges(qeval, folder, expected, _):
    got, _ = quantized(qeval, folder, expected)
    want = json.load(open(f"{folder}/act_dict.json"))
    bad, count = [], 0
    for module, slots in want.items():
        for slot, (lo, hi) in slots.items():
            count += 1
            have = got.get(module, {}).get(slot)
            size = max(abs(lo), abs(hi), 1e-12)
            if have is None or max(abs(have[0] - lo), abs(have[1] - hi)) > 1e-3 * size:
                bad.append(f"{module}.{slot}")
    return not bad, f"{len(bad)} of {count} ranges differ {bad[:3]}"


def enabled(config):
    return {(m, s): {k: str(v) for k, v in spec.items()} for m, slots in config.items() for s, spec in slots.items()
            if int(spec["bitwidth"]) <= 16}


def check_points(qeval, folder, expected, _):
    _, got = quantized(qeval, folder, expected)
    want = enabled(json.load(open(f"{folder}/default_qcfg.json")))
    have = enabled(got)
    bad = [k for k in want.keys() | have.keys() if want.get(k) != have.get(k)]
    return not bad, f"{len(bad)} of {len(want)} points differ {bad[:3]}"


def check_own(qeval, folder, expected, _):
    """Rounded logits tie: then any of the largest is right."""
    want = expected["own"]
    got, top = score(qeval, folder, expected["input_ids"], None)
    if len(got) != len(want["logprobs"]) or len(top) != len(want["best"]):
        return False, f"{len(got)} log-probabilities instead of {len(want['logprobs'])}"
    mean = sum(abs(a - b) for a, b in zip(got, want["logprobs"])) / len(got)
    agree = sum(a in best for a, best in zip(top, want["best"])) / len(top)
    return mean <= want["limit"] and agree >= want["least"], f"mean {mean:.1e} limit {want['limit']:.0e} top-1 {100 * agree:.1f}%"


CHECKS = {"own": check_own, "float": check_float, "fake": check_fake, "integer": check_integer, "ranges": check_ranges, "points": check_points}
KINDS = {"architectures": ["float"], "simulated": ["float", "fake", "integer", "ranges", "points"], "quantized": ["float", "own"]}


def main():
    ap = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n")[0])
    ap.add_argument("qeval")
    ap.add_argument("--goldens", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "goldens"))
    ap.add_argument("--only", default="", choices=["", *CHECKS])
    ap.add_argument("--case", default="")
    a = ap.parse_args()
    qeval = os.path.abspath(a.qeval)
    ran = failed = 0
    for group, kinds in KINDS.items():
        for name in sorted(os.listdir(f"{a.goldens}/{group}")):
            folder = f"{a.goldens}/{group}/{name}"
            if a.case not in name or not os.path.isdir(folder):
                continue
            expected = json.load(open(f"{folder}/expected.json"))
            for kind in kinds:
                if a.only not in ("", kind) or (group == "quantized" and kind not in expected):
                    continue
                ran += 1
                try:
                    passed, text = CHECKS[kind](qeval, folder, expected, name)
                except Exception as error:  # a case that cannot run has failed, unless it is not to run
                    refusal = expected.get("refuses", {}).get(kind)
                    passed, text = refusal is not None and refusal in str(error), f"{type(error).__name__}: {str(error)[:300]}"
                failed += not passed
                print(f"{'ok  ' if passed else 'FAIL'} {kind} {name}: {text}", flush=True)
    print(f"{failed} failed" if failed else f"all passed ({ran} cases)" if ran else "no such case")
    sys.exit(1 if failed or not ran else 0)


if __name__ == "__main__":
    main()
