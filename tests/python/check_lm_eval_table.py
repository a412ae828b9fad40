#!/usr/bin/env python3
"""Do lm-evaluation-harness's own tools read our results? usage: check_lm_eval_table.py RESULT_DIR...

Where Python has lm_eval, per folder: its table maker must accept results.json, for tasks and for groups, and show every
score of the file; every line of the samples files must have the fields of its schema, hashes as it computes them, and
the metrics that its own aggregations give from the lines must be those of results.json. Where Python has no lm_eval,
prints a line that begins with "skip" and ends with success. Exits with 1 at the first disagreement.
"""
import json
import math
import os
import sys

try:
    from lm_eval.utils import handle_non_serializable, hash_string, make_table
except ImportError as missing:
    print(f"skip: lm-evaluation-harness cannot be imported ({missing})")
    sys.exit(0)

# The harness's aggregations by metric; its api.metrics needs more packages than its table maker, so its absence only
# narrows the check.
try:
    from lm_eval.api.metrics import bits_per_byte, mean, mean_stderr, perplexity, weighted_perplexity

    AGGREGATIONS = {
        "acc": mean,
        "acc_norm": mean,
        "acc_bytes": mean,
        "perplexity": perplexity,
        "word_perplexity": weighted_perplexity,
        "byte_perplexity": weighted_perplexity,
        "token_perplexity": weighted_perplexity,
        "bits_per_byte": bits_per_byte,
    }
except ImportError as missing:
    print(f"note: aggregations are not checked ({missing})")
    AGGREGATIONS = {}

SAMPLE_FIELDS = {
    "doc_id": int,
    "doc": dict,
    "target": str,
    "arguments": dict,
    "resps": list,
    "filtered_resps": list,
    "filter": str,
    "metrics": list,
    "doc_hash": str,
    "prompt_hash": str,
    "target_hash": str,
}


def expect(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        sys.exit(1)


def close(a, b):
    return isinstance(a, (int, float)) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def rows_of(table):
    """(name, metric) -> value of each row; a row without a name belongs to the one above."""
    rows, name = {}, ""
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 9:
            name = cells[0].lstrip("- ") or name
            rows[name, cells[4]] = cells[6]
    return rows


def check_tables(results):
    for column in ("results", "groups"):
        if column not in results:
            continue
        table = make_table(results, column)
        print(table)
        rows = rows_of(table)
        for name, scores in results[column].items():
            for key, value in scores.items():
                metric = key.partition(",")[0]
                if key == metric or metric.endswith("_stderr"):
                    continue
                shown = rows.get((name, metric))
                expect(shown is not None, f"the table of {column} does not show {metric} of {name}")
                if isinstance(value, float):
                    expect(abs(float(shown) - value) <= 5.1e-5, f"the table of {column}: {metric} of {name} is {shown}")


def check_samples(path, task, results):
    values = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            sample = json.loads(line)
            where = f"{path}:{number}"
            for field, kind in SAMPLE_FIELDS.items():
                expect(isinstance(sample.get(field), kind), f"{where}: {field} is not {kind.__name__}")
            first = sample["arguments"]["gen_args_0"]["arg_0"]
            doc = json.dumps(sample["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False)
            expect(sample["doc_hash"] == hash_string(doc), f"{where}: doc_hash")
            expect(sample["prompt_hash"] == hash_string(first), f"{where}: prompt_hash")
            expect(sample["target_hash"] == hash_string(sample["target"]), f"{where}: target_hash")
            expect(len(sample["resps"]) == len(sample["arguments"]), f"{where}: resps")
            expect([r[0] for r in sample["resps"]] == sample["filtered_resps"], f"{where}: filtered_resps")
            for metric in sample["metrics"]:
                expect(metric in sample, f"{where}: {metric} has no value")
                values.setdefault(metric, []).append(sample[metric])
    scores = results["results"][task]
    expect(scores["sample_len"] == len(next(iter(values.values()), [])), f"{task}: sample_len")
    for metric, items in values.items():
        if metric not in AGGREGATIONS:
            continue
        expect(close(scores[f"{metric},none"], AGGREGATIONS[metric](items)), f"{task}: {metric}")
        if AGGREGATIONS[metric] is mean and len(items) > 1:
            expect(close(scores[f"{metric}_stderr,none"], mean_stderr(items)), f"{task}: standard error of {metric}")
    return len(next(iter(values.values()), []))


def main():
    expect(len(sys.argv) > 1, "usage: check_lm_eval_table.py RESULT_DIR...")
    for folder in sys.argv[1:]:
        with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
            results = json.load(file)
        check_tables(results)
        documents = 0
        for task in results["configs"]:
            documents += check_samples(os.path.join(folder, f"samples_{task}.jsonl"), task, results)
        print(f"ok: {folder}: {len(results['configs'])} tasks, {documents} documents")


if __name__ == "__main__":
    main()
