#!/usr/bin/env python3
"""Renders published chat templates by `qeval template` and compares with what jinja2 made of them.

FOLDER holds NAME.jinja and NAME.jsonl: a rendering per line, with its variables and `text`, or `error` where the
template refuses. Prints "ok   NAME" or "FAIL NAME: the first case that differs" for each.

usage: check_templates.py QEVAL FOLDER
"""

import json
import subprocess
import sys
from pathlib import Path


def check(qeval, template):
    """None, or what differs first."""
    lines = template.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    run = subprocess.run([qeval, "template", str(template)], input="\n".join(lines) + "\n", capture_output=True,
                         encoding="utf-8", check=False)
    if run.returncode != 0:
        return f"exit status {run.returncode}: {run.stderr.strip()}"
    answers = run.stdout.splitlines()
    if not lines or len(answers) != len(lines):
        return f"{len(answers)} answers to {len(lines)} cases"
    for number, (line, answer) in enumerate(zip(lines, answers), 1):
        case, got = json.loads(line), json.loads(answer)
        expected = case["text"] if "text" in case else {"error": case["error"]}
        if got != expected:
            return f"line {number} ({case.get('talk')}): {got!r} instead of {expected!r}"
    return None


def main():
    qeval, folder = sys.argv[1], Path(sys.argv[2])
    templates = sorted(folder.glob("*.jinja"))
    if not templates:
        sys.exit(f"{folder}: no NAME.jinja")
    failed = 0
    for template in templates:
        wrong = check(qeval, template)
        failed += wrong is not None
        print(f"ok   {template.stem}" if wrong is None else f"FAIL {template.stem}: {wrong}")
    return 1 if failed else 0


sys.exit(main())
