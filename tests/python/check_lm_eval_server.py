#!/usr/bin/env python3
"""Does lm-evaluation-harness get our scores through our server? usage: check_lm_eval_server.py QEVAL MODEL DATA [options]

Starts `qeval serve`, lets the harness's own `local-completions` evaluate ARC-Easy (DATA/arc_easy/test.jsonl, the first
--limit documents) with the server's tokenizer, and compares acc and acc_norm with those of `qeval eval`. Needs
lm-eval[api]; where it cannot be imported, prints a line that begins with "skip" and ends with success.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
try:
    import aiohttp  # noqa: F401
    import datasets  # noqa: F401
    import lm_eval
    import tenacity  # noqa: F401
    from lm_eval.tasks import TaskManager
except ImportError as missing:
    print(f"skip: lm-evaluation-harness with its api packages cannot be imported ({missing})")
    sys.exit(0)

TASK = """task: arc_easy_here
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
doc_to_choice: "{{{{choices.text}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1.0}}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qeval")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--arithmetic", default="float")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--concurrent", type=int, default=4)
    options = parser.parse_args()
    common = ["-m", options.model, "--arithmetic", options.arithmetic]
    with tempfile.TemporaryDirectory() as scratch:
        with open(os.path.join(scratch, "task.yaml"), "w", encoding="utf-8") as file:
            file.write(TASK.format(file=os.path.abspath(os.path.join(options.data, "arc_easy", "test.jsonl"))))
        server = subprocess.Popen([options.qeval, "serve", *common, "--port", "0"], stdout=subprocess.PIPE, text=True)
        line = server.stdout.readline()
        if "http://" not in line:
            sys.exit("FAILED: the server did not start")
        name, url = line.split()[0], line.split()[-1]
        try:
            results = lm_eval.simple_evaluate(
                model="local-completions",
                model_args=f"model={name},base_url={url},tokenizer_backend=remote,"
                f"num_concurrent={options.concurrent},max_retries=1",
                batch_size=options.batch_size,
                tasks=["arc_easy_here"],
                task_manager=TaskManager(include_path=scratch, include_defaults=False),
                limit=options.limit,
            )["results"]["arc_easy_here"]
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait()
        command = [options.qeval, "eval", *common, "-t", "arc_easy", "-d", options.data]
        command += ["--limit", str(options.limit), "-o", os.path.join(scratch, "ours")]
        ours = subprocess.run(command, capture_output=True, text=True, check=False)
        if ours.returncode:
            sys.exit(f"FAILED: {ours.stderr.strip()}")
        with open(os.path.join(scratch, "ours", "results.json"), encoding="utf-8") as file:
            expected = json.load(file)["results"]["arc_easy"]
    for metric in ("acc,none", "acc_norm,none"):
        print(f"{options.arithmetic} {metric}: lm-eval through the server {results[metric]}, qeval eval {expected[metric]}")
        if abs(results[metric] - expected[metric]) > 1e-9:
            sys.exit("FAILED: they differ")
    if status:
        sys.exit(f"FAILED: the server ended with {status}")
    print(f"ok: {options.model}")


if __name__ == "__main__":
    main()
