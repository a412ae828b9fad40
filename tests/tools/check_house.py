#!/usr/bin/env python3
"""Draws the include graph and checks it: no cycle of files, no folder that includes what it may not know
(docs/architecture.md), no file of more than 500 lines, no link in the documents and no reference to them in the code that leads
nowhere, no document that
README.md does not name, no text of others' data sets in the example of a report, no test that lies elsewhere than what it
tests: the test of a/b/c.cc is tests/a/b/c_test.cc, no local name that a file beside it has too (QEVAL_UNITY). With --draw: the graph of folders,
for Graphviz."""

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# What each folder may include besides itself and its own sub-folders; the nearest folder above decides.
MAY_KNOW = {
    "base": [],
    "datasets": ["base"],
    "model": ["base"],
    "quant/grid": ["model", "base"],
    "quant/calibrate": ["quant/grid", "model", "base"],
    "quant/arithmetic": ["quant/grid", "quant/calibrate", "model", "base"],
    "quant/methods": ["quant/grid", "quant/calibrate", "quant/arithmetic", "model", "base"],
    "quant/checkpoint": ["quant/grid", "quant/calibrate", "quant/arithmetic", "quant/methods", "model", "base"],
    "quant/export": ["quant/grid", "quant/arithmetic", "model", "base"],
    "quant": ["model", "base"],
    "eval/results": ["base"],
    "eval/distributed/mpi": ["base"],
    "eval/engine/jinja": ["base"],
    "eval/engine": ["model", "quant", "base"],
    "eval/compare": ["eval", "model", "quant", "base"],
    "eval/divergence": ["datasets", "eval/engine", "eval/results", "eval", "model", "base"],
    "eval": ["model", "quant", "datasets", "base"],
    "reports": ["eval/results", "base"],
    "cli": ["model", "quant", "datasets", "eval", "reports", "base"],
    "python": ["cli", "model", "quant", "datasets", "eval", "base"],
}
MOST_LINES = 500
# What CMake compiles alone, whatever QEVAL_UNITY says (cmake/qeval.cmake): one path of the CPU each.
COMPILED_ALONE = r"_(avx|neon|portable|smooth)[a-z0-9_]*\.cc$"
# Tests of several sources, in the folder of what they have in common.
TESTS_OF_SEVERAL = {
    "base/base", "eval/evaluation_parts", "eval/tasks/generating", "model/mixers", "model/architectures/expert_architectures",
    "model/checkpoint/gguf_weights", "model/checkpoint/quantized/refusals", "model/tokenizer/bpe_files",
    "model/tokenizer/character_files", "model/tokenizer/vectors", "quant/methods/learn/goldens", "quant/methods/learn/learned_codes", "quant/methods/learn/learned_forms",
}


def room(path):
    """The folder of MAY_KNOW that a file lives in."""
    return next((str(p) for p in path.parents if str(p) in MAY_KNOW), None)


def find_cycle(graph):
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node):] + [node]
        if node in done:
            return None
        path.append(node)
        for following in graph.get(node, []):
            if found := visit(following):
                return found
        done.add(path.pop())
        return None

    return next((cycle for node in sorted(graph) if (cycle := visit(node))), None)


def anchors(path):
    """What a link may have behind its '#': the headings, as they are shown."""
    titles = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def check_documents():
    wrong = []
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for document in documents:
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, heading = link.partition("#")
            target = document.parent / path if path else document
            if not target.exists() or (heading and heading not in anchors(target)):
                wrong.append(f"{document.relative_to(ROOT)}: the link {link} leads nowhere")
    if 'class="example"' in (ROOT / "docs/example/report.html").read_text(encoding="utf-8"):
        wrong.append("docs/example/report.html holds questions of others' data sets: make it with --no-examples")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for document in (ROOT / "docs").glob("*.md"):
        if f"(docs/{document.name}" not in readme:
            wrong.append(f"README.md names no docs/{document.name}")
    return wrong


def check_references(path, text):
    """Comments and messages name documents as docs/NAME.md or docs/NAME.md#heading; those that a clone does not have
    cannot be looked up."""
    wrong = []
    for name, heading in re.findall(r"(?<![\w./])((?:docs/[\w/-]+|(?!FILE)[A-Z][A-Z_-]+)\.md)(?:#([\w-]+))?", text):
        target = ROOT / name
        if not target.exists() or (heading and heading not in anchors(target)):
            wrong.append(f"{path}: the reference {name}{'#' if heading else ''}{heading} leads nowhere")
    return wrong


def check_tests():
    """The program as a whole (tests/cli, tests/mpi) is tested command by command."""
    wrong = []
    for test in sorted((ROOT / "tests").rglob("*_test.cc")):
        name = str(test.relative_to(ROOT / "tests"))[:-len("_test.cc")]
        if name.split("/")[0] in ("cli", "mpi") or name in TESTS_OF_SEVERAL:
            continue
        if not any((ROOT / (name + suffix)).exists() for suffix in (".cc", ".h")):
            wrong.append(f"tests/{name}_test.cc: there is no {name}.cc or .h that it tests")
    return wrong


def defined_names(text, local):
    """Names that the lines of a file define outside of classes and functions, with those lines: in its unnamed namespaces
    (`local`), or anywhere. Files are laid out by clang-format, so such lines alone begin in the first column."""
    text = re.sub(r'R"(\w*)\(.*?\)\1"', '""', text, flags=re.S)
    inside = not local
    for line in text.split("\n"):
        if local and line in ("namespace {", "}  // namespace"):
            inside = line == "namespace {"
        if not inside or not re.match(r"[A-Za-z_\[]", line) or re.match(r"(template|namespace|extern|TEST|using (?!\w+ =))", line):
            continue
        if found := re.match(r"(?:struct|class|enum class|enum|using|MATCHER\w*\() ?(\w+)(?![\w;])", line):
            yield found[1], line
            continue
        head = re.sub(r"^\[\[.*?\]\] *", "", line)
        while "<" in (shorter := re.sub(r"<[^<>]*>", "", head)) and shorter != head:
            head = shorter
        if found := re.search(r"[ *&](\w+)$", re.split(r"[({=;\[]", shorter)[0].rstrip()):
            yield found[1], line
            yield from ((name, line) for name in re.findall(r", (k[A-Z]\w*) = ", line))


def check_local_names():
    """With QEVAL_UNITY the files of a library or test program are compiled together, and what is local to one of them is
    known to those behind it. The same alias may stand in several."""
    wrong, local, shared, types, used = [], {}, {}, {}, {}
    for path in sorted(p.relative_to(ROOT) for top in {*(name.split("/")[0] for name in MAY_KNOW), "tests"}
                       for p in (ROOT / top).rglob("*") if p.suffix in (".cc", ".h")):
        if "emulated" in path.parts or re.search(COMPILED_ALONE, path.name):
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.parts[0] == "tests":
            target = path.parts[:2]
        else:
            target = next(parent for parent in path.parents if (ROOT / parent / "CMakeLists.txt").exists())
        if path.suffix == ".cc":
            for name, line in defined_names(text, True):
                local.setdefault((target, name), {})[path] = line
            for name in re.findall(r"^using ([\w:]+::\w+);", text, re.M):
                used.setdefault((target, name.split("::")[-1]), {})["::".join(name.split("::")[-2:])] = path
        elif "namespace {" not in text:
            for name, line in defined_names(text, False):
                shared.setdefault((target, name), path)
                if re.match(r"struct|class|enum|using", line):
                    types.setdefault((("tests", path.parts[0]), name), path)
    for (target, name), places in sorted(used.items(), key=str):
        if len(places) > 1:
            wrong.append(f"{name} is {' and '.join(f'{known} in {path}' for known, path in places.items())}: use one in all")
    for (target, name), places in sorted(local.items(), key=str):
        if name == "PrintTo":  # GoogleTest's, which it calls by the type
            continue
        if len(places) > 1 and (len(set(places.values())) > 1 or not all(l.startswith("using ") for l in places.values())):
            wrong.append(f"{name} is a local name of {' and of '.join(map(str, places))}: share it, or give them two")
        elif (header := shared.get((target, name), types.get((target, name)))) is not None:
            wrong.append(f"{name} is a local name of {next(iter(places))} and stands in {header}")
    return wrong


def check_mutants():
    """Code moves: what tests/tools/mutate.py breaks must still stand in its file, once."""
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    from mutate import MUTANTS
    return [f"tests/tools/mutate.py: {name}: its line stands {count} times in {file}"
            for name, _, file, line, *_ in MUTANTS
            if (count := (ROOT / file).read_text(encoding="utf-8").count(line)) != 1]


def main():
    wrong = check_documents() + check_tests() + check_local_names() + check_mutants()
    files = [p.relative_to(ROOT) for top in {name.split("/")[0] for name in MAY_KNOW}
             for p in (ROOT / top).rglob("*") if p.suffix in (".h", ".cc")]
    graph, folders = {}, Counter()
    for path in files:
        text = (ROOT / path).read_text(encoding="utf-8")
        wrong += check_references(path, text)
        included = [Path(name) for name in re.findall(r'^#include "([^"]+)"', text, re.M) if (ROOT / name).exists()]
        graph[path] = included
        here = room(path)
        for other in included:
            folders[path.parent, other.parent] += 1
            there = room(other)
            inside = there == here or there.startswith(here + "/")
            if not inside and not any(there == name or there.startswith(name + "/") for name in MAY_KNOW[here]):
                wrong.append(f"{path} includes {other}: {here} may not know {there}")
    if cycle := find_cycle(graph):
        wrong.append("cycle: " + " -> ".join(map(str, cycle)))
    for path in [*(ROOT / "tests").rglob("*"), *(ROOT / "scripts").rglob("*"), *(ROOT / "bench").rglob("*")]:
        if path.suffix in (".cc", ".h", ".py", ".sh") and path.name != "check_house.py":
            wrong += check_references(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    for path in files + [p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.cc")]:
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            wrong.append(f"{path}: {lines} lines; at most {MOST_LINES}")
    if "--draw" in sys.argv:
        print("digraph includes {")
        for (a, b), count in sorted(folders.items()):
            if a != b:
                print(f'  "{a}" -> "{b}" [label={count}];')
        print("}")
    else:
        print("\n".join(wrong) or f"{len(files)} files, {sum(map(len, graph.values()))} includes: no cycle")
    return 1 if wrong else 0


sys.exit(main())
