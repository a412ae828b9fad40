"""llama.cpp through llama-cpp-python: greedy texts of the requests, one after another.

usage: llama_texts.py MODEL.gguf REQUESTS.json THREADS
REQUESTS.json: [[context, settings], ...]. Prints {"seconds", "cpu_seconds", "answers"}, loading left out.
"""

import json
import sys
import time

from llama_cpp import Llama


def main():
    path, requests_file, threads = sys.argv[1:]
    with open(requests_file, encoding="utf-8") as file:
        requests = json.load(file)
    llama = Llama(model_path=path, n_ctx=2048, n_batch=2048, n_threads=int(threads), n_threads_batch=int(threads),
                  verbose=False)
    wall, cpu = time.perf_counter(), time.process_time()
    texts = []
    for context, settings in requests:
        answer = llama(context, max_tokens=settings.get("max_gen_toks", 256), stop=settings["until"], temperature=0)
        texts.append(answer["choices"][0]["text"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "answers": texts}))


if __name__ == "__main__":
    main()
