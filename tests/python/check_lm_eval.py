#!/usr/bin/env python3
"""Does lm-evaluation-harness get our scores through our server, or our package? usage: check_lm_eval.py QEVAL MODEL DATA [options]

Lets the harness's own `local-completions` evaluate ARC-Easy (DATA/arc_easy/test.jsonl, the first --limit documents) by a
`qeval serve` with the server's tokenizer, or with --package the package's model `qeval`, and compares acc and acc_norm
with those of `qeval eval`. Needs lm-eval[api]; where it cannot be imported, prints a line that begins with "skip" and ends
with success.
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


def evaluate(model, arguments, folder, options):
    return lm_eval.simple_evaluate(model=model, model_args=arguments, batch_size=options.batch_size, tasks=["arc_easy_here"],
                                   task_manager=TaskManager(include_path=folder, include_defaults=False),
                                   limit=options.limit)["results"]["arc_easy_here"]


def through_server(common, folder, options):
    server = subprocess.Popen([options.qeval, "serve", *common, "--port", "0"], stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    if "http://" not in line:
        sys.exit("FAILED: the server did not start")
    name, url = line.split()[0], line.split()[-1]
    arguments = f"model={name},base_url={url},tokenizer_backend=remote,num_concurrent={options.concurrent},max_retries=1"
    try:
        results = evaluate("local-completions", arguments, folder, options)
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait()
    return results, status


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qeval")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--arithmetic", default="float")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--concurrent", type=int, default=4)
    parser.add_argument("--package", action="store_true", help="the model of the Python package instead of a server")
    options = parser.parse_args()
    common = ["-m", options.model, "--arithmetic", options.arithmetic]
    with tempfile.TemporaryDirectory() as scratch:
        with open(os.path.join(scratch, "task.yaml"), "w", encoding="utf-8") as file:
            file.write(TASK.format(file=os.path.abspath(os.path.join(options.data, "arc_easy", "test.jsonl"))))
        if options.package:
            results, status = evaluate("qeval", f"pretrained={options.model},arithmetic={options.arithmetic}", scratch, options), 0
        else:
            results, status = through_server(common, scratch, options)
        command = [options.qeval, "eval", *common, "-t", "arc_easy", "-d", options.data]
        command += ["--limit", str(options.limit), "-o", os.path.join(scratch, "ours")]
        ours = subprocess.run(command, capture_output=True, text=True, check=False)
        if ours.returncode:
            sys.exit(f"FAILED: {ours.stderr.strip()}")
        with open(os.path.join(scratch, "ours", "results.json"), encoding="utf-8") as file:
            expected = json.load(file)["results"]["arc_easy"]
    for metric in ("acc,none", "acc_norm,none"):
        print(f"{options.arithmetic} {metric}: lm-eval {results[metric]}, qeval eval {expected[metric]}")
        if abs(results[metric] - expected[metric]) > 1e-9:
            sys.exit("FAILED: they differ")
    if status:
        sys.exit(f"FAILED: the server ended with {status}")
    print(f"ok: {options.model}")


if __name__ == "__main__":
    main()
