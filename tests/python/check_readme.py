#!/usr/bin/env python3
"""Runs the commands of README.md's examples and compares what they print with what README.md says.

    check_readme.py QEVAL MODEL.gguf

A line of "…" stands for any lines. Numbers may differ by a tenth or by 0.02: paths of the processor differ in last
digits, and a rounding that falls the other way changes what follows it."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def examples(text):
    """(command, lines printed) of each block that shows a command behind '$ '."""
    for block in re.findall(r"^```\n(\$ .*?)^```", text, re.M | re.S):
        lines = block.rstrip("\n").split("\n")
        command = lines.pop(0)[2:]
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0)
        yield command, lines


def same(shown, printed):
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed))
    return all(abs(a - b) <= max(0.02, 0.1 * abs(a))
               for a, b in ((float(x.replace(",", "")), float(y.replace(",", ""))) for x, y in pairs))


def find(shown, printed):
    """The first line of README.md that is not in the output in its place, or None."""
    at, anywhere = 0, False
    for line in shown:
        if line == "…":
            anywhere = True
            continue
        if anywhere:
            while at < len(printed) and not same(line, printed[at]):
                at += 1
        if at >= len(printed) or not same(line, printed[at]):
            return line
        at, anywhere = at + 1, False
    return None


def main():
    qeval, model = (str(Path(argument).resolve()) for argument in sys.argv[1:3])
    ok = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(model, Path(folder) / Path(model).name)
        os.symlink(ROOT / "examples", Path(folder) / "examples")
        for command, shown in examples((ROOT / "README.md").read_text(encoding="utf-8")):
            result = subprocess.run(["bash", "-c", f'qeval() {{ "{qeval}" "$@"; }}; {command}'], cwd=folder,
                                    capture_output=True, text=True, check=False)
            missing = find(shown, result.stdout.split("\n"))
            if result.returncode or missing is not None:
                failed += 1
                print(f"FAIL {command}\n        not printed: {missing}\n{result.stdout}{result.stderr}")
            else:
                ok += 1
                print(f"ok {command}")
    print(f"{ok} ok, {failed} failed")
    sys.exit(1 if failed or ok < 3 else 0)


if __name__ == "__main__":
    main()
