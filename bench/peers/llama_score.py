"""llama.cpp: the log-likelihood of one window, logits at every position.

usage: llama_score.py MODEL.gguf IDS.json THREADS      prints {"seconds", "cpu_seconds", "sum"}, loading left out
"""

import json
import sys
import time

import numpy as np
from llama_cpp import Llama


def main():
    path, ids_file, threads = sys.argv[1:]
    with open(ids_file, encoding="utf-8") as file:
        ids = json.load(file)
    llama = Llama(
        model_path=path, n_ctx=len(ids), n_batch=len(ids), n_threads=int(threads), n_threads_batch=int(threads),
        logits_all=True, verbose=False,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    llama.eval(ids[:-1])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    logits = np.array(llama.scores[: len(ids) - 1], dtype=np.float64)
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    total = float(logits[np.arange(len(ids) - 1), ids[1:]].sum())
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "sum": total}))


if __name__ == "__main__":
    main()
