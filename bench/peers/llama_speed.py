"""llama.cpp: what llama-bench calls pp and tg, of one model.

usage: llama_speed.py MODEL.gguf IDS.json THREADS pp|tg COUNT
pp: COUNT tokens of the file at once, with the logits of all. tg: COUNT tokens one at a time behind a first one, with
the logits of each. Prints {"seconds", "cpu_seconds"}, loading left out.
"""

import json
import sys
import time

from llama_cpp import Llama


def main():
    path, ids_file, threads, kind, count = sys.argv[1:]
    threads, count = int(threads), int(count)
    with open(ids_file, encoding="utf-8") as file:
        ids = json.load(file)[: count + 1]
    llama = Llama(
        model_path=path, n_ctx=count + 1, n_batch=count + 1, n_threads=threads, n_threads_batch=threads,
        logits_all=kind == "pp", verbose=False,
    )
    if kind == "tg":
        llama.eval(ids[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "pp":
        llama.eval(ids[:count])
    else:
        for token in ids[1:]:
            llama.eval([token])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
