"""Time and memory of qeval against the length of the context, the number of tokens and the size of the model.

Every point is the run of `qeval score` over windows of random ids, all positions scored, less a run over two tokens
(which loads the same model). Prints Markdown tables; with matplotlib, --plot writes a picture.

usage: scaling.py --bin DIR [--model NAME=PATH[@CONTEXT]]... [--integer CHECKPOINT] [--plot FILE.svg]
"""

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from measure import child, machine  # noqa: E402  (its folder is not a package)


def score(arguments, path, context, windows, options=()):
    generator = random.Random(context)
    ids = [[generator.randrange(3, 500) for _ in range(context)] for _ in range(windows)]
    command = [arguments.bin / "qeval", "score", "-m", path, "--threads", arguments.threads, "--max-length", context, *options]

    def run(requests):
        lines = [json.dumps({"id": i, "context_ids": r[:1], "continuation_ids": r[1:]}) for i, r in enumerate(requests)]
        return child(command, "\n".join(lines) + "\n")

    load = run([ids[0][:2]])
    whole = run(ids)
    tokens = windows * (context - 1)
    return {"context": context, "tokens": tokens, "rate": tokens / (whole[0] - load[0]), "load": load[0], "peak": whole[2],
            "cores": (whole[1] - load[1]) / (whole[0] - load[0])}


def table(title, points, first):
    print(f"### {title}\n\n| {first} | tokens/s | cores busy | loading s | peak MiB |\n| ---: | ---: | ---: | ---: | ---: |")
    for name, p in points:
        print(f"| {name} | {p['rate']:.0f} | {p['cores']:.2f} | {p['load']:.2f} | {p['peak']:.0f} |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH[@CONTEXT]",
                        help="a model, and the longest context to try (default: 8192)")
    parser.add_argument("--integer", metavar="DIR", help="a quantized checkpoint to run in integers as well")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    print(machine() + "\n")
    curves = {}
    for model in arguments.model:
        name, path = model.split("=", 1)
        path, _, longest = path.partition("@")
        contexts = [n for n in (256, 512, 1024, 2048, 4096, 8192) if n <= int(longest or 8192)]
        points = [(n, score(arguments, path, n, max(1, 2048 // n))) for n in contexts]
        curves[name] = points
        table(f"{name}, by context", points, "context")
    if arguments.integer:
        points = [(n, score(arguments, arguments.integer, n, max(1, 2048 // n), ["--arithmetic", "integer"]))
                  for n in (256, 512, 1024, 2048, 4096, 8192)]
        curves["integer"] = points
        table("Integer arithmetic, by context", points, "context")
    if arguments.model:
        name, path = arguments.model[0].split("=", 1)
        path = path.partition("@")[0]
        points = [(w * 511, score(arguments, path, 512, w)) for w in (1, 4, 16, 64)]
        table(f"{name}, by number of tokens (windows of 512)", points, "tokens")
    if arguments.plot:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot

        matplotlib.rcParams["svg.hashsalt"] = "qeval"
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5))
        for name, points in curves.items():
            x = [n for n, _ in points]
            axes[0].plot(x, [p["rate"] for _, p in points], "o-", label=name)
            axes[1].plot(x, [p["peak"] for _, p in points], "o-", label=name)
        for axis, label in zip(axes, ("tokens/s", "peak MiB")):
            axis.set(xscale="log", yscale="log", xlabel="context, tokens", ylabel=label)
            axis.set_xticks([256, 512, 1024, 2048, 4096, 8192], [256, 512, "1k", "2k", "4k", "8k"])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(arguments.plot, metadata={"Date": None})


if __name__ == "__main__":
    main()
