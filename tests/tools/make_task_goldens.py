#!/usr/bin/env python3
"""Writes tests/goldens/tasks: a few of the odd rows and answers of make_odd_answers.py and make_odd_instructions.py with
what lm-evaluation-harness makes of them, for machines that lack it. Prompts are there as their SHA-256.

    make_task_goldens.py tests/goldens/tasks

Needs what those scripts need. Instructions about languages are left out: their profiles are not ours to give.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

PYTHON = pathlib.Path(__file__).resolve().parent.parent / "python"
FAMILIES = ("bbh_", "hendrycks_math", "minerva_math", "leaderboard_math", "mmlu_virology_generative", "humaneval", "mbpp")
FOLDERS = ("bbh", "hendrycks_math", "mmlu", "humaneval", "mbpp")
LANGUAGES = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
DOCUMENTS, ANSWERS, ROWS_OF_KIND = 3, 4, 3


def made_by(script, folder):
    subprocess.run([sys.executable, PYTHON / script, folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines()]


def answers(folder, out):
    for row in made_by("make_odd_answers.py", folder):
        if row["task"].startswith(FAMILIES) and not row["system"] and not row["chat"] and row["doc_id"] < DOCUMENTS:
            prompt = hashlib.sha256(row["prompt"].encode()).hexdigest()
            yield {"task": row["task"], "doc_id": row["doc_id"], "shots": row["shots"], "prompt_sha256": prompt,
                   "answers": row["answers"][:ANSWERS]}
    for name in FOLDERS:
        own_examples = shutil.ignore_patterns("train.jsonl") if name in ("bbh", "humaneval", "mbpp") else None
        shutil.copytree(folder / "data" / name, out / "data" / name, ignore=own_examples)


def instructions(folder, out):
    expected = made_by("make_odd_instructions.py", folder)
    rows = [json.loads(line) for line in (folder / "data/ifeval/train.jsonl").read_text(encoding="utf-8").splitlines()]
    kept, count = [], {}
    for row, judged in zip(rows, expected):
        kind = row["instruction_id_list"][0]
        if any(name in LANGUAGES for name in row["instruction_id_list"]) or count.get(kind, 0) == ROWS_OF_KIND:
            continue
        count[kind] = count.get(kind, 0) + 1
        row["kwargs"] = [{key: value for key, value in kwargs.items() if value is not None} for kwargs in row["kwargs"]]
        yield {"task": "ifeval", "doc_id": len(kept), "shots": 0, "prompt_sha256": hashlib.sha256(row["prompt"].encode()).hexdigest(),
               "answers": judged["answers"][:2 * ANSWERS]}
        kept.append(row)
    (out / "data/ifeval").mkdir(parents=True)
    (out / "data/ifeval/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    shutil.copytree(folder / "data/ifeval/punkt_english", out / "data/ifeval/punkt_english")


def main():
    out = pathlib.Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        lines = [*answers(pathlib.Path(one), out), *instructions(pathlib.Path(other), out)]
    (out / "expected.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
