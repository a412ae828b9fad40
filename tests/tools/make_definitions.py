#!/usr/bin/env python3
"""Writes what tasks bring along besides their rows into datasets/definitions/, from the definitions of
lm-evaluation-harness (an installed lm_eval): per task of BIG-Bench Hard its opening sentence and worked examples, as
the harness's four forms and the leaderboard have them (bbh.jsonl); the worked examples of MATH and MBPP.

    make_definitions.py datasets/definitions
"""

import ast
import json
import os
import pathlib
import sys

import lm_eval.tasks
import yaml


class Loader(yaml.SafeLoader):
    """Reads the definitions without running what they name."""


Loader.add_multi_constructor("!function", lambda loader, suffix, node: node.value)
ROOT = pathlib.Path(os.path.dirname(lm_eval.tasks.__file__))


def read(path):
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), Loader)


def examples(definition):
    return [{"input": row["input"], "target": row["target"]} for row in definition["fewshot_config"]["samples"]]


def bbh():
    for path in sorted((ROOT / "bbh/cot_fewshot").glob("[a-z]*.yaml")):
        name = path.stem
        cot, plain = read(f"bbh/cot_fewshot/{path.name}"), read(f"bbh/fewshot/{path.name}")
        zero, cot_zero = read(f"bbh/zeroshot/{path.name}"), read(f"bbh/cot_zeroshot/{path.name}")
        out = {"name": name, "description": cot["description"]}
        for other in (plain, zero, cot_zero):
            if other["description"] != out["description"]:
                sys.exit(f"{name}: the forms open with other sentences")
        out["thought"], out["answered"] = examples(cot), examples(plain)
        flexible = next(f for f in zero["filter_list"] if f["name"] == "flexible-extract")["filter"][0]
        out["flexible"] = {key: value for key, value in flexible.items() if key != "group_select"}
        if (ROOT / "leaderboard/bbh_mc" / path.name).exists():
            board = read(f"leaderboard/bbh_mc/{path.name}")
            out["leaderboard"] = {"description": board["description"], "choices": board["doc_to_choice"],
                                  "examples": examples(board)}
        yield out


def samples(path):
    """What list_fewshot_samples() of a definition's Python file returns, without running the file."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples":
            return ast.literal_eval(node.body[-1].value)
    sys.exit(f"{path}: has no list_fewshot_samples")


def main():
    out = pathlib.Path(sys.argv[1])
    for name, rows in (("bbh", bbh()), ("minerva_math", samples("minerva_math/utils.py")),
                       ("leaderboard_math", samples("leaderboard/math/utils.py")), ("mbpp", samples("mbpp/utils.py"))):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
