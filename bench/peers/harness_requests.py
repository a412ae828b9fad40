"""lm-evaluation-harness on its Hugging Face CPU backend, float32: log-likelihoods of the requests in samples files.

usage: harness_requests.py MODEL.gguf REQUESTS.json THREADS BATCH
REQUESTS.json: [[context, continuation], ...]. Prints {"seconds", "cpu_seconds", "scores"}, loading left out.
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
    model = HFLM(pretrained=folder, gguf_file=name, device="cpu", dtype="float32",
                 batch_size=int(batch), max_length=2048)
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=tuple(request), idx=i)
        for i, request in enumerate(requests)
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    answers = model.loglikelihood(instances, disable_tqdm=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "scores": [score for score, _ in answers]}))


if __name__ == "__main__":
    main()
