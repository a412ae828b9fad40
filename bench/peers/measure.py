"""Runs qeval and its peers in alternation and prints ratios, with the smallest and the largest, as Markdown.

Every run is a process of its own, so that its peak memory is its own. Peers report the seconds of the work alone,
without loading. qeval's seconds are those of its whole run: for a window of text less those of a run over two tokens
(which loads the same model), for tasks and for a training step as they are.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKS = ("float", "torch", "integer", "integer-float", "ggml", "choice", "generation", "training")
GGML_FILES = {"F16": ("f16.gguf", "float"), "Q8_0": ("q8_0.gguf", "ggml"), "Q4_0": ("q4_0.gguf", "ggml"),
              "Q4_K_M": ("q4_k_m.gguf", "ggml")}
GGML_WORKS = (("pp", 512), ("pp", 2047), ("tg", 128))


def child(command, stdin=""):
    """(seconds, CPU seconds, peak MiB, standard output) of a program."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as printed:
        given.write(stdin)
        given.seek(0)
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdin=given, stdout=printed,
                                   stderr=subprocess.PIPE, text=True)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"measure.py: {' '.join(map(str, command))} failed: {errors.strip().splitlines()[-1:]}")
        printed.seek(0)
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed.read()


class Run:
    """What one run took: seconds, CPU seconds, peak MiB, and what it computed."""

    def __init__(self, seconds, cpu, peak, result):
        self.seconds, self.cpu, self.peak, self.result = seconds, cpu, peak, result


def peer(arguments, script, *rest):
    _, _, peak, output = child([sys.executable, HERE / script, *rest])
    answer = json.loads(output.strip().splitlines()[-1])
    return Run(answer["seconds"], answer["cpu_seconds"], peak, answer)


def qeval_score(arguments, model, *options, tokens=None):
    ids = json.loads(arguments.ids.read_text())[:tokens and tokens + 1]
    command = [arguments.bin / "qeval", "score", "-m", model, "--threads", arguments.threads, "--max-length", len(ids)]
    command += options

    def score(count):
        request = {"id": 0, "context_ids": ids[:1], "continuation_ids": ids[1:count]}
        return child(command, json.dumps(request) + "\n")

    load, whole = score(2), score(len(ids))
    return Run(whole[0] - load[0], whole[1] - load[1], whole[2], {"sum": json.loads(whole[3])["logprob"]})


def mean_range(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def alternate(arguments, contestants):
    """contestants {name: function}: every one once a round, in turns. {name: [Run]}"""
    runs = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, function in contestants.items():
            runs[name].append(function())
            print(f"{name}: {runs[name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return runs


def table(title, note, amount, unit, runs):
    """A row per contestant; ratios are against the last one, of the same round."""
    *_, ours = runs
    print(f"### {title}\n\n{note}\n")
    print(f"| | {unit}/s | ratio of time to {ours} | of CPU time | peak MiB |\n| --- | ---: | ---: | ---: | ---: |")
    for name, own in runs.items():
        row = [mean_range([amount / run.seconds for run in own], 0 if amount > 100 else 2)]
        if name == ours:
            row += ["", ""]
        else:
            row.append(mean_range([a.seconds / b.seconds for a, b in zip(own, runs[ours])]))
            row.append(mean_range([a.cpu / b.cpu for a, b in zip(own, runs[ours])]))
        row.append(f"{max(run.peak for run in own):.0f}")
        print(f"| {name} | " + " | ".join(row) + " |")
    print(flush=True)


def sums(runs):
    return "Log-likelihood of the window: " + ", ".join(f"{name} {own[0].result['sum']:.2f}" for name, own in runs.items()) + "."


def window(arguments, title, contestants):
    tokens = len(json.loads(arguments.ids.read_text())) - 1
    runs = alternate(arguments, contestants)
    table(title, f"One window of {tokens} tokens, logits of all. {sums(runs)}", tokens, "tokens", runs)


def run_float(arguments):
    f16 = arguments.work / "f16.gguf"
    window(arguments, "Float: llama.cpp", {
        "llama.cpp F16": lambda: peer(arguments, "llama_score.py", f16, arguments.ids, arguments.threads),
        "qeval float": lambda: qeval_score(arguments, f16),
    })


def run_torch(arguments):
    window(arguments, "Float: PyTorch", {
        "PyTorch float32": lambda: peer(arguments, "torch_score.py", arguments.model, arguments.ids, arguments.threads),
        "qeval float": lambda: qeval_score(arguments, arguments.work / "f16.gguf"),
    })


def run_integer(arguments):
    checkpoint, q8 = arguments.work / "w8a8", arguments.work / "q8_0.gguf"
    window(arguments, "Integer: llama.cpp Q8_0", {
        "llama.cpp Q8_0": lambda: peer(arguments, "llama_score.py", q8, arguments.ids, arguments.threads),
        "qeval integer w8a8": lambda: qeval_score(arguments, checkpoint, "--arithmetic", "integer"),
    })


def run_integer_float(arguments):
    window(arguments, "Integer and float", {
        "qeval float": lambda: qeval_score(arguments, arguments.work / "f16.gguf"),
        "qeval integer w8a8": lambda: qeval_score(arguments, arguments.work / "w8a8", "--arithmetic", "integer"),
    })


def qeval_generate(arguments, model, arithmetic, count):
    """Of `generate`, the seconds of the tokens behind the first; CPU seconds and peak are of the whole run."""
    command = [arguments.bin / "qeval", "generate", "-m", model, "--arithmetic", arithmetic, "--threads", arguments.threads]
    command += ["-p", "The history of the town", "-n", count + 1, "--ignore-eos", "--stats", "--max-length", count + 64]
    with tempfile.TemporaryFile("w+") as stats:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=stats)
        _, status, usage = os.wait4(process.pid, 0)
        stats.seek(0)
        text = stats.read()
    found = re.search(r"^generation +(\d+) tokens, ([\d.]+) tokens/s", text, re.M)
    if status or not found or int(found[1]) != count:
        sys.exit(f"measure.py: qeval generate -m {model} failed: {text.strip()}")
    return Run(count / float(found[2]), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, {})


def run_ggml(arguments):
    """llama-bench's pp and tg by type of file."""
    print("### GGUF files: prompts and generation\n\npp: a prompt of so many tokens, logits of all; tg: so many tokens one at "
          "a time. qeval in --arithmetic ggml, F16 in float.\n")
    print("| file | work | llama.cpp, tokens/s | qeval, tokens/s | ratio |\n| --- | --- | ---: | ---: | ---: |")
    for name, (file, arithmetic) in GGML_FILES.items():
        model = arguments.work / file
        for kind, count in GGML_WORKS:
            runs = alternate(arguments, {
                f"llama.cpp {name} {kind}{count}": lambda: peer(
                    arguments, "llama_speed.py", model, arguments.ids, arguments.threads, kind, count),
                f"qeval {name} {kind}{count}": lambda: qeval_score(
                    arguments, model, "--arithmetic", arithmetic, tokens=count) if kind == "pp" else qeval_generate(
                    arguments, model, arithmetic, count),
            })
            theirs, ours = runs.values()
            rates = [mean_range([count / run.seconds for run in own], 0) for own in (theirs, ours)]
            ratio = mean_range([a.seconds / b.seconds for a, b in zip(theirs, ours)])
            print(f"| {name} | {kind}{count} | {rates[0]} | {rates[1]} | {ratio} |", flush=True)
    print()


def read_requests(folder):
    """The requests of samples files, and our log-likelihoods of them."""
    requests, scores = [], []
    for path in sorted(folder.glob("samples_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            for i, answer in enumerate(sample["resps"]):
                arguments = sample["arguments"][f"gen_args_{i}"]
                requests.append([arguments["arg_0"], arguments["arg_1"]])
                scores.append(float(answer[0][0]))
    return requests, scores


def run_choice(arguments):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        count = 0

        def evaluate(model=arguments.model, *options):
            nonlocal count
            count += 1
            out = folder / str(count)
            command = [arguments.bin / "qeval", "eval", "-m", model, "-t", arguments.tasks, "-d", arguments.data, *options]
            command += ["--limit", arguments.limit, "--log-samples", "--threads", arguments.threads, "-o", out]
            if not (arguments.data / "arc_easy" / "test.jsonl").exists():
                command += ["--split", "validation"]
            seconds, cpu, peak, _ = child(command)
            return Run(seconds, cpu, peak, {"scores": read_requests(out)[1]})

        evaluate()
        requests, ours = read_requests(folder / "1")
        (folder / "requests.json").write_text(json.dumps(requests))
        contestants = {
            f"lm-evaluation-harness, batch {batch}": lambda batch=batch: peer(
                arguments, "harness_requests.py", arguments.model, folder / "requests.json", arguments.threads, batch,
                "loglikelihood")
            for batch in arguments.harness_batch.split(",")
        }
        contestants["qeval eval, integer w8a8"] = lambda: evaluate(arguments.work / "w8a8", "--arithmetic", "integer")
        contestants["qeval eval"] = evaluate
        runs = alternate(arguments, contestants)
        theirs = runs[next(iter(runs))]
        differences = [abs(a - b) for a, b in zip(theirs[0].result["answers"], ours)]
        integers = [a.seconds / b.seconds for a, b in zip(theirs, runs["qeval eval, integer w8a8"])]
        note = (f"{len(requests)} requests, {arguments.limit} documents of each of {arguments.tasks}. Log-likelihoods differ by "
                f"{statistics.mean(differences):.1e} on average, {max(differences):.1e} at most. qeval's time includes loading. "
                f"The harness takes {mean_range(integers)} times as long as integers.")
        table("Multiple choice", note, len(requests), "requests", runs)


def read_prompts(folder):
    """Prompts with their settings, and our texts, of a samples file."""
    prompts, texts = [], []
    for path in sorted(folder.glob("samples_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            given = sample["arguments"]["gen_args_0"]
            prompts.append([given["arg_0"], given["arg_1"]])
            texts.append(sample["resps"][0][0])
    return prompts, texts


def run_generation(arguments):
    """A task that generates; without its data nothing is run."""
    f16 = arguments.work / "f16.gguf"
    for task in arguments.generating.split(","):
        if not any((arguments.data / name).exists() for name in (task, task.split("_")[0])):
            print(f"### Texts: {task}\n\nNo data of {task} in {arguments.data}.\n", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            count = 0

            def evaluate():
                nonlocal count
                count += 1
                out = folder / str(count)
                command = [arguments.bin / "qeval", "eval", "-m", f16, "-t", task, "-d", arguments.data]
                command += ["--limit", arguments.limit, "--threads", arguments.threads, "-o", out]
                seconds, cpu, peak, _ = child(command)
                return Run(seconds, cpu, peak, {"answers": read_prompts(out)[1]})

            evaluate()
            prompts, ours = read_prompts(folder / "1")
            (folder / "prompts.json").write_text(json.dumps(prompts))
            runs = alternate(arguments, {
                "lm-evaluation-harness": lambda: peer(arguments, "harness_requests.py", f16, folder / "prompts.json",
                                                      arguments.threads, 1, "generate_until"),
                "llama.cpp F16": lambda: peer(arguments, "llama_texts.py", f16, folder / "prompts.json", arguments.threads),
                "qeval eval": evaluate,
            })
            same = {name: sum(a == b for a, b in zip(own[0].result["answers"], ours)) for name, own in runs.items()}
            note = (f"Greedy texts of {len(prompts)} documents, {statistics.mean(map(len, ours)):.0f} characters on average; "
                    f"equal to ours: " + ", ".join(f"{name} {n}" for name, n in same.items()) + ". qeval's time includes loading.")
            table(f"Texts: {task}", note, len(prompts), "documents", runs)


def last_step(lines):
    return json.loads(lines.strip().splitlines()[-1])


def run_training(arguments):
    def theirs():
        _, _, peak, output = child([sys.executable, HERE / "training_step.py", "--threads", arguments.threads, "--json"])
        answer = last_step(output)
        return Run(answer["seconds"], answer["cpu_seconds"], peak, answer)

    def ours():
        command = [arguments.bin / "training_bench", "--benchmark_format=json", "--benchmark_filter=end_to_end_step"]
        _, _, peak, output = child(command)
        entry = json.loads(output)["benchmarks"][0]
        return Run(entry["step_wall_s"], entry["step_cpu_s"], peak, entry)

    runs = alternate(arguments, {"PyTorch": theirs, "qeval": ours})
    table("A training step", "MobileQuant end to end, 256 tokens, 30 blocks, w8a8, random weights.", 1, "steps", runs)


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    has = [flag for flag in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{name}, {os.cpu_count()} cores ({', '.join(has)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.gguf")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="f16.gguf, q8_0.gguf, q4_0.gguf, q4_k_m.gguf and w8a8")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--limit", type=int, default=25, help="documents of each task (default: 25)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--context", type=int, default=2048, help="tokens of the window")
    parser.add_argument("--generating", default="gsm8k,gsm8k_cot", metavar="TASK,...", help="tasks of the work generation")
    parser.add_argument("--harness-batch", default="1", metavar="N,...")
    parser.add_argument("--only", default=",".join(WORKS), help="of " + ", ".join(WORKS))
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    for name in wanted:
        if name not in WORKS:
            parser.error(f"unknown work '{name}'; known: {', '.join(WORKS)}")
    arguments.ids = arguments.work / f"ids-{arguments.context}.json"
    text = (arguments.work / "text.txt").read_text(encoding="utf-8")[: arguments.context * 16]
    lines = child([arguments.bin / "qeval", "tokenize", "-m", arguments.model, "--json-lines"], json.dumps(text) + "\n")[3]
    arguments.ids.write_text(json.dumps([1, *json.loads(lines)][: arguments.context]))
    print(f"{machine()}; {arguments.threads} threads; {arguments.rounds} rounds in turns; load "
          f"{os.getloadavg()[0]:.1f} at the start.\n")
    for name in wanted:
        globals()["run_" + name.replace("-", "_")](arguments)


if __name__ == "__main__":
    main()
