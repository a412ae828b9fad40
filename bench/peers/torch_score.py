"""PyTorch with transformers, float32: the log-likelihood of one window, logits at every position.

usage: torch_score.py MODEL.gguf IDS.json THREADS      prints {"seconds", "cpu_seconds", "sum"}, loading left out
"""

import json
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    path, ids_file, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with open(ids_file, encoding="utf-8") as file:
        ids = torch.tensor([json.load(file)])
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    with torch.inference_mode():
        model(ids[:, :64])
        wall, cpu = time.perf_counter(), time.process_time()
        logits = model(ids[:, :-1]).logits[0]
        chosen = logits.gather(1, ids[0, 1:, None])[:, 0] - logits.logsumexp(1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "sum": float(chosen.double().sum())}))


if __name__ == "__main__":
    main()
