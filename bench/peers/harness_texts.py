"""lm-evaluation-harness on its Hugging Face CPU backend, float32: greedy texts of the requests in a samples file.

usage: harness_texts.py MODEL.gguf REQUESTS.json THREADS BATCH
REQUESTS.json: [[context, settings], ...]. Prints {"seconds", "cpu_seconds", "texts"}, loading left out.
"""

import json
import os
import sys
import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def main():
    path, requests_file, threads, batch = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with open(requests_file, encoding="utf-8") as file:
        requests = json.load(file)
    folder, name = os.path.split(os.path.abspath(path))
    model = HFLM(pretrained=folder, gguf_file=name, device="cpu", dtype="float32", batch_size=int(batch), max_length=2048)
    instances = [
        Instance(request_type="generate_until", doc={}, arguments=tuple(request), idx=i)
        for i, request in enumerate(requests)
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    texts = model.generate_until(instances, disable_tqdm=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "texts": texts}))


if __name__ == "__main__":
    main()
