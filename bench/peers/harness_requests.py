"""lm-evaluation-harness on its Hugging Face CPU backend, float32: the answers to the requests in samples files.

usage: harness_requests.py MODEL.gguf REQUESTS.json THREADS BATCH loglikelihood|generate_until
REQUESTS.json: [[context, continuation or settings], ...]. Prints {"seconds", "cpu_seconds", "answers"}, log-likelihoods or
texts, loading left out.
"""

import json
import os
import sys
import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def main():
    path, requests_file, threads, batch, kind = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with open(requests_file, encoding="utf-8") as file:
        requests = json.load(file)
    folder, name = os.path.split(os.path.abspath(path))
    model = HFLM(pretrained=folder, gguf_file=name, device="cpu", dtype="float32",
                 batch_size=int(batch), max_length=2048)
    instances = [
        Instance(request_type=kind, doc={}, arguments=tuple(request), idx=i)
        for i, request in enumerate(requests)
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    answers = getattr(model, kind)(instances, disable_tqdm=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    answers = [answer[0] if kind == "loglikelihood" else answer for answer in answers]
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "answers": answers}))


if __name__ == "__main__":
    main()
