#!/usr/bin/env python3
"""Compare qeval with the goldens. Standard library only.

usage: check_goldens.py QEVAL [--goldens DIR] [--only float|rtn|smooth|fake|integer|grad|train] [--case NAME]

Per case it prints the mean and largest difference of token log-probabilities (train: of the losses), the limit, and
ok or FAIL; exits 1 if any case fails. The float64 twin of each fake-quantized case sets that case's limit: see tests/goldens/README.md.
"""
import argparse, array, json, math, os, struct, subprocess, sys, tempfile

def safetensors(path):
    b = open(path, "rb").read()
    n, = struct.unpack("<Q", b[:8])
    head = json.loads(b[8:8 + n])
    out = {}
    for k, v in head.items():
        if k == "__metadata__":
            continue
        s, e = v["data_offsets"]
        code = {"F32": "f", "F64": "d", "I64": "q", "I32": "i"}.get(v["dtype"])
        if code:
            a = array.array(code)
            a.frombytes(b[8 + n + s:8 + n + e])
            out[k] = (v["shape"], a)
    return out

def rows(t):
    (r, c), a = t
    return [list(a[i * c:(i + 1) * c]) for i in range(r)]

def logprobs(logits, ids):
    """Expected log-probabilities and arg-max of ids[:, 1:] under logits (B, T, V)."""
    (B, T, V), a = logits
    lp, top = [], []
    for b in range(B):
        for t in range(T - 1):
            row = a[(b * T + t) * V:(b * T + t + 1) * V]
            m = max(row)
            z = m + math.log(math.fsum(math.exp(x - m) for x in row))
            lp.append(row[ids[b][t + 1]] - z)
            top.append(max(range(V), key=row.__getitem__))
    return lp, top

def score(qeval, model, ids, arithmetic):
    req = "".join(json.dumps({"id": i, "context_ids": r[:1], "continuation_ids": r[1:]}) + "\n" for i, r in enumerate(ids))
    given = ["--arithmetic", arithmetic] if arithmetic else []
    p = subprocess.run([qeval, "score", "-m", model, *given], input=req, capture_output=True, text=True, timeout=600)
    if p.returncode:
        raise RuntimeError(p.stderr.strip().splitlines()[-1] if p.stderr.strip() else f"exit {p.returncode}")
    lp, top = [], []
    for line in p.stdout.splitlines():
        r = json.loads(line)
        lp += r["token_logprobs"]
        top += r.get("top1", [])
    return lp, top

FAILED, RAN = [], []
def report(name, got, want, limit, tops=None, least=None):
    d = [abs(x - y) for x, y in zip(got, want)]
    ok = len(got) == len(want) and len(d) > 0 and sum(d) / len(d) <= limit
    d = d or [float("nan")]
    text = f"mean {sum(d)/len(d):.2e} max {max(d):.2e} limit {limit:.0e}"
    if least is not None and not (tops and len(tops[0]) == len(tops[1])):
        ok, text = False, text + " top1 missing from the answers"
    elif tops and tops[0]:
        agree = sum(a == b for a, b in zip(*tops)) / len(tops[1])
        text += f" top-1 {100*agree:.1f}%"
        ok = ok and (least is None or agree >= least)
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {text}", flush=True)
    if not ok:
        FAILED.append(name)

def guard(name, f):
    RAN.append(name)
    try:
        f()
    except Exception as e:  # a case that cannot run has failed
        print(f"FAIL {name}: {str(e)[:200]}", flush=True)
        FAILED.append(name)

def compare(q, d, name, ids, logits, arithmetic, limit, least=None):
    want, wtop = logprobs(logits, ids)
    got, gtop = score(q, d, ids, arithmetic)
    report(name, got, want, limit, (gtop, wtop), least)

def train(q, base, run, name, e):
    s = json.load(open(f"{run}/settings.json"))
    x = safetensors(f"{run}/expected_training.safetensors")
    method = "mobilequant" if s["mode"] == "e2e" else "lrl" if s["lrl"] else "omniquant"
    scheme = f"w{s['weight_bitwidth']}a8" + ("-sym" if s["weight_symmetric"] else "")
    with tempfile.TemporaryDirectory() as t:
        with open(f"{t}/ids.jsonl", "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows(e["calibration_ids"]))
        cmd = [q, "quantize", "-m", base, "--method", method, "--variant", "original" if s["original_omniquant"] else "modified",
               "--scheme", scheme, "--no-smooth", "--act-ranges", f"{base}/act_dict.json", "--calibration-ids", f"{t}/ids.jsonl",
               "--samples", str(s["nsamples"]), "--sequence-length", str(s["seqlen"]), "--epochs", str(s["epochs"]), "-o", f"{t}/out"]
        for k in ("let", "lwc", "lrl") if s["lrl"] else ("let", "lwc"):
            cmd += [f"--{k}-lr", str(s[f"{k}_lr"]), f"--{k}-min-lr", str(s[f"{k}_min_lr"])]
        p = subprocess.run(cmd, capture_output=True, text=True, timeout=900)
        if p.returncode:
            raise RuntimeError(p.stderr.strip().splitlines()[-1] if p.stderr.strip() else f"exit {p.returncode}")
        got = [json.loads(l)["loss"] for l in open(f"{t}/out/training.jsonl")]
        want = list(x["loss"][1])
        rel = [abs(g - w) / max(abs(w), 1e-9) for g, w in zip(got, want)]
        first, mean = max(1e-3, 3 * s["noise"]["loss_first"]), max(0.02, 3 * s["noise"]["loss_mean"])
        ok = len(got) == len(want) and rel[0] <= first and sum(rel) / len(rel) <= mean
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {len(got)} of {len(want)} steps, first loss off by {rel[0]:.1e} (limit {first:.0e}), mean {sum(rel)/len(rel):.1e} (limit {mean:.0e})", flush=True)
        if not ok:
            FAILED.append(name)
        ids = rows(e["input_ids"])
        compare(q, f"{t}/out", name + " result", ids, x["logits_after"], "fake", max(0.05, 3 * s["noise"]["logprob_mean"]))

def gradients(q, d, name, e):
    """Gradients of the end-to-end loss on the first sample, at the start, for every learnable parameter."""
    x = safetensors(f"{d}/expected_gradients.safetensors")
    parts = d.rsplit("/", 1)[1].split("-", 1)
    with tempfile.TemporaryDirectory() as t:
        with open(f"{t}/ids.jsonl", "w") as f:
            f.write(json.dumps(rows(e["calibration_ids"])[0]) + "\n")
        p = subprocess.run([q, "quantize", "-m", d, "--method", "mobilequant", "--variant", "modified", "--scheme", parts[1], "--no-smooth", "--act-ranges", f"{d}/act_dict.json",
                            "--calibration-ids", f"{t}/ids.jsonl", "--samples", "1", "--sequence-length", "48", "--gradients-only", f"{t}/g.safetensors", "-o", f"{t}/out"],
                           capture_output=True, text=True, timeout=300)
        if p.returncode:
            raise RuntimeError(p.stderr.strip().splitlines()[-1] if p.stderr.strip() else f"exit {p.returncode}")
        g = safetensors(f"{t}/g.safetensors")
    norm = lambda v: math.sqrt(math.fsum(u * u for u in v))
    good = bad = missing = 0
    worst = ("", 0.0)
    for k, (_, a) in x.items():
        if k.startswith("f64.") or k == "loss":
            continue
        b = x["f64." + k][1]
        n = norm(a)
        if n < 1e-8 or norm([u - v for u, v in zip(a, b)]) > 0.02 * n:
            continue  # the reference itself is not stable here
        if k not in g or len(g[k][1]) != len(a):
            missing += 1
            continue
        off = norm([u - v for u, v in zip(a, g[k][1])])
        r = off / n
        close = r <= 0.05 or off <= 1e-5
        good, bad = good + close, bad + (not close)
        if not close and not r <= worst[1]:
            worst = (k, r)
    ok = missing == 0 and good >= 19 * bad and good > 0
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {good} parameters within 5 %, {bad} outside, {missing} missing; worst {worst[0]} {worst[1]:.1e}", flush=True)
    if not ok:
        FAILED.append(name)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("qeval")
    ap.add_argument("--goldens", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "goldens"))
    ap.add_argument("--only", default="", choices=["", "float", "rtn", "smooth", "fake", "integer", "grad", "train"])
    ap.add_argument("--case", default="")
    a = ap.parse_args()
    q, g = os.path.abspath(a.qeval), a.goldens
    want = lambda kind, n: (not a.only or a.only == kind) and a.case in n
    for n in sorted(os.listdir(f"{g}/huggingface")):
        d = f"{g}/huggingface/{n}"
        if want("float", n):
            e = safetensors(f"{d}/expected.safetensors")
            guard("float " + n, lambda: compare(q, d, "float " + n, rows(e["input_ids"]), e["logits"], "float", 2e-4, 0.99))
    for n in sorted(os.listdir(f"{g}/mobilequant")):
        d = f"{g}/mobilequant/{n}"
        e = safetensors(f"{d}/expected.safetensors")
        ids = rows(e["input_ids"])
        if n.endswith("-base"):
            if want("float", n):
                guard("float " + n, lambda: compare(q, d, "float " + n, ids, e["logits_fp32"], "float", 2e-4, 0.99))
            if want("rtn", n):
                guard("rtn " + n, lambda: compare(q, d, "rtn " + n, ids, e["logits_rtn_w8a8"], "fake", 2e-3, 0.97))
            if want("smooth", n):
                guard("smooth " + n, lambda: smooth(q, d, f"{g}/mobilequant/{n[:-5]}-w8a8", "smooth " + n, e))
            continue
        if want("float", n):
            guard("float " + n, lambda: compare(q, d, "float " + n, ids, e["logits_smoothed_fp32"], "float", 2e-4, 0.99))
        (_, x), (_, y) = e["logits_fakequant"], e["logits_fakequant_f64"]
        noise = sum(abs(u - v) for u, v in zip(x, y)) / len(x)
        if want("fake", n):
            guard("fake " + n, lambda: compare(q, d, "fake " + n, ids, e["logits_fakequant"], "fake", max(1e-3, 3 * noise), 0.95))
        if want("integer", n):
            guard("integer " + n, lambda: compare(q, d, "integer " + n, ids, e["logits_fakequant"], "integer", 0.05))
        if want("grad", n):
            guard("grad " + n, lambda: gradients(q, d, "grad " + n, e))
        for r in sorted(x for x in os.listdir(d) if x.startswith("train-")):
            if want("train", f"{n}/{r}"):
                guard(f"train {n}/{r}", lambda: train(q, d, f"{d}/{r}", f"train {n}/{r}", e))
    print(f"{len(FAILED)} failed" if FAILED else f"all passed ({len(RAN)} cases)" if RAN else "no such case")
    sys.exit(1 if FAILED or not RAN else 0)

def smooth(q, base, smoothed, name, e):
    """SmoothQuant from the base model must give the smoothed checkpoint's ranges and fake-quantized answers."""
    x = safetensors(f"{smoothed}/expected.safetensors")
    with tempfile.TemporaryDirectory() as t:
        with open(f"{t}/ids.jsonl", "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows(e["calibration_ids"]))
        p = subprocess.run([q, "quantize", "-m", base, "--method", "smoothquant", "--variant", "modified", "--scheme", "w8a8", "--alpha", "0.5",
                            "--calibration-ids", f"{t}/ids.jsonl", "--samples", "4", "--sequence-length", "48", "-o", f"{t}/out"], capture_output=True, text=True, timeout=300)
        if p.returncode:
            raise RuntimeError(p.stderr.strip().splitlines()[-1] if p.stderr.strip() else f"exit {p.returncode}")
        got, ref = json.load(open(f"{t}/out/act_dict.json")), json.load(open(f"{smoothed}/act_dict.json"))
        rel = [abs(u - v) / max(abs(v), 1e-3) for m in ref for k in ref[m] for u, v in zip(got[m][k], ref[m][k])] if all(k in got.get(m, {}) for m in ref for k in ref[m]) else [9.0]
        worst, ok = max(rel), all(r < 1e-3 for r in rel)
        print(f"{'ok  ' if ok else 'FAIL'} {name} ranges: largest relative difference {worst:.1e} (limit 1e-3)", flush=True)
        if not ok:
            FAILED.append(name)
        compare(q, f"{t}/out", name, rows(x["input_ids"]), x["logits_fakequant"], "fake", 5e-3, 0.95)

if __name__ == "__main__":
    main()
