#!/usr/bin/env python3
"""Runs fuzz targets, each for a time of its own CPU, and prints a line per target (docs/reliability.md).

    cmake --preset fuzz && cmake --build --preset fuzz --target fuzz
    scripts/fuzz.py --seconds 600 gguf pytorch      (all targets where none is named)

Inputs that reach something new are kept in build/fuzz/corpus/TARGET, beside those of tests/fuzz/corpus and those that
fuzz_corpus makes; an input that shows a defect in build/fuzz/findings/TARGET-…, the fuzzer's output in
build/fuzz/TARGET.log. Ends with status 1 if there was a finding. --keep packs what the whole corpus of each target
covers, in as few inputs as possible, into tests/fuzz/corpus/TARGET.tar.gz.
"""

import argparse
import gzip
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
KEPT = ROOT / "tests" / "fuzz" / "corpus"
SEEDS = BUILD / "seeds"
# An allocation that a number in a file asks for is a finding. libFuzzer's time is wall time, in which a process may be
# stopped: tests/fuzz/libfuzzer.cc bounds the time of the CPU.
LIMITS = ["-rss_limit_mb=1500", "-malloc_limit_mb=400", "-timeout=3600", "-report_slow_units=3600"]
LARGEST_KEPT = 16384  # bytes of an input that is packed


def targets():
    names = sorted(path.name[len("fuzz_"):] for path in (BUILD / "bin").glob("fuzz_*"))
    return [name for name in names if name != "corpus"]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unpack(name):
    """The committed inputs of a target as files."""
    folder = BUILD / "kept" / name
    archive = KEPT / f"{name}.tar.gz"
    if archive.exists() and not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-C", str(folder.parent), "-xzf", str(archive)], check=True)
    return folder


def inputs(name):
    return [str(folder) for folder in (SEEDS / name, unpack(name)) if folder.exists()]


def run(name, seconds):
    """(executions, CPU seconds, whether a defect was found)"""
    corpus = BUILD / "corpus" / name
    findings = BUILD / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    command = [str(BUILD / "bin" / f"fuzz_{name}"), *LIMITS, "-print_final_stats=1",
               f"-artifact_prefix={findings}/{name}-", str(corpus), *inputs(name)]
    with open(BUILD / f"{name}.log", "w", encoding="utf-8", errors="replace") as log:
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        used = 0.0
        while process.poll() is None:
            used = cpu_seconds(process.pid)
            if used >= seconds:
                process.send_signal(signal.SIGINT)
                process.wait()
                break
            time.sleep(1)
    text = (BUILD / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    lines = re.findall(r"^#(\d+)", text, re.MULTILINE)
    count = int(executed.group(1)) if executed else int(lines[-1]) if lines else 0
    return count, used, "Test unit written to" in text or process.returncode not in (0, 72)


def keep(name):
    """Packs the corpus, minimised, as the regression's inputs."""
    merged = BUILD / "merged" / name
    merged.mkdir(parents=True, exist_ok=True)
    for old in merged.iterdir():
        old.unlink()
    command = [str(BUILD / "bin" / f"fuzz_{name}"), "-merge=1", f"-max_len={LARGEST_KEPT}", *LIMITS, str(merged),
               *inputs(name), str(BUILD / "corpus" / name)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for path in sorted(merged.iterdir()):
            entry = tarfile.TarInfo(f"{name}/{path.name}")
            data = path.read_bytes()
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    (KEPT / f"{name}.tar.gz").write_bytes(gzip.compress(archive.getvalue(), mtime=0))
    return len(list(merged.iterdir())), (KEPT / f"{name}.tar.gz").stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="CPU time of each target (default: 600)")
    parser.add_argument("--keep", action="store_true", help="pack the minimised corpora instead")
    parser.add_argument("target", nargs="*", help="default: all")
    arguments = parser.parse_args()
    known = targets()
    unknown = [name for name in arguments.target if name not in known]
    if unknown or not known:
        sys.exit(f"fuzz.py: no target {', '.join(unknown)}; there are: {', '.join(known) or 'none, build them first'}")
    maker = BUILD / "bin" / "fuzz_corpus"
    if maker.exists():
        subprocess.run([str(maker), str(SEEDS)], check=True)
    failed = 0
    for name in arguments.target or known:
        if arguments.keep:
            count, size = keep(name)
            print(f"{name}: {count} inputs, {size} bytes", flush=True)
            continue
        executions, seconds, found = run(name, arguments.seconds)
        failed += found
        print(f"{'FAIL' if found else 'ok  '} {name}: {executions} executions, {seconds:.0f} s of CPU", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
