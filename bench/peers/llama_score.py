"""Log-likelihood of one window of text, llama.cpp and qeval in alternation: tokens per second, and both sums.

Both compute the logits of every position. llama.cpp keeps its model loaded; qeval's time is that of the program
less that of a run over two tokens, which loads the same model.

usage: llama_score.py --qeval PROGRAM --model F16.gguf [--peer-model Q8.gguf] --ids IDS.json [--threads N]
                      [--rounds N] [-- OPTIONS OF qeval score]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import time

import numpy as np
from llama_cpp import Llama


class Peer:
    def __init__(self, path, ids, threads):
        self.ids = ids
        self.llama = Llama(
            model_path=path, n_ctx=len(ids), n_batch=len(ids), n_threads=threads, n_threads_batch=threads,
            logits_all=True, verbose=False,
        )

    def run(self):
        self.llama.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        self.llama.eval(self.ids[:-1])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        logits = np.array(self.llama.scores[: len(self.ids) - 1], dtype=np.float64)
        logits -= logits.max(1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        return wall, cpu, logits[np.arange(len(self.ids) - 1), self.ids[1:]].sum()


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def score(command, ids, count):
    request = {"id": 0, "context_ids": ids[:1], "continuation_ids": ids[1:count]}
    wall, cpu = time.perf_counter(), children_seconds()
    output = subprocess.run(
        command, input=json.dumps(request) + "\n", capture_output=True, text=True, check=True
    ).stdout
    return time.perf_counter() - wall, children_seconds() - cpu, json.loads(output)["logprob"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--qeval", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer-model")
    parser.add_argument("--ids", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    with open(arguments.ids, encoding="utf-8") as file:
        ids = json.load(file)
    tokens = len(ids) - 1
    command = [arguments.qeval, "score", "-m", arguments.model, "--threads", str(arguments.threads)]
    command += ["--max-length", str(tokens), *arguments.options]
    peer = Peer(arguments.peer_model or arguments.model, ids, arguments.threads)
    ratios, cpu_ratios = [], []
    for _ in range(arguments.rounds):
        theirs, ours, load = peer.run(), score(command, ids, len(ids)), score(command, ids, 2)
        wall, cpu = ours[0] - load[0], ours[1] - load[1]
        ratios.append(theirs[0] / wall)
        cpu_ratios.append(theirs[1] / cpu)
        print(
            f"llama.cpp {tokens / theirs[0]:.0f} tokens/s, sum {theirs[2]:.3f}; "
            f"qeval {tokens / wall:.0f} tokens/s (loading {load[0]:.2f} s), sum {ours[2]:.3f}; "
            f"ratio {ratios[-1]:.2f}, of CPU time {cpu_ratios[-1]:.2f}",
            flush=True,
        )
    for name, values in (("wall", ratios), ("CPU", cpu_ratios)):
        print(f"{name} ratio: median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    main()
