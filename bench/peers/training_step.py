"""One end-to-end training step of MobileQuant in PyTorch, on the shape that training_bench uses.

SmolLM2-135M's shape with random weights, 30 blocks, w8a8: every quantization point of docs/quantization.md simulated,
scales between layers, clipping bounds and activation ranges learned, mean squared error at the last block's output,
AdamW. Written as PyTorch users write it: quantizers as autograd functions, one sample per step.

usage: training_step.py [--tokens N] [--steps N] [--threads N] [--json]
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 576, 1536, 30, 9, 3, 64


class Round(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return torch.round(x)

    @staticmethod
    def backward(_, gradient):
        return gradient


def fake_quantize(x, scale, offset, most):
    return (torch.clamp(Round.apply(x / scale) + offset, 0, most) - offset) * scale


class Activation(nn.Module):
    """A static quantizer whose scale and offset are learned."""

    def __init__(self, bits, low, high):
        super().__init__()
        self.most = 2**bits - 1
        self.scale = nn.Parameter(torch.tensor((high - low) / self.most))
        self.offset = nn.Parameter(torch.tensor(-low / ((high - low) / self.most)))

    def forward(self, x):
        return fake_quantize(x, self.scale, self.offset, self.most)


class Weight(nn.Module):
    """An asymmetric weight quantizer with learned clipping of its range, per tensor or per row."""

    def __init__(self, rows, bits=8):
        super().__init__()
        shape = (rows, 1) if rows else ()
        self.most, self.per_row = 2**bits - 1, bool(rows)
        self.upper, self.lower = nn.Parameter(torch.full(shape, 4.0)), nn.Parameter(torch.full(shape, 4.0))

    def forward(self, w):
        low = w.amin(1, keepdim=True) if self.per_row else w.min()
        high = w.amax(1, keepdim=True) if self.per_row else w.max()
        low, high = torch.sigmoid(self.lower) * low, torch.sigmoid(self.upper) * high
        scale = (high - low) / self.most
        return fake_quantize(w, scale, torch.round(-low / scale).detach(), self.most)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Block(nn.Module):
    def __init__(self):
        super().__init__()

        def weight(rows, cols):
            return torch.randn(rows, cols) / cols**0.5

        self.w = {
            "q": weight(HEADS * HEAD_DIM, HIDDEN),
            "k": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            "v": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            "o": weight(HIDDEN, HEADS * HEAD_DIM),
            "gate": weight(INTERMEDIATE, HIDDEN),
            "up": weight(INTERMEDIATE, HIDDEN),
            "down": weight(HIDDEN, INTERMEDIATE),
        }
        self.norms = [1 + 0.1 * torch.randn(HIDDEN), 1 + 0.1 * torch.randn(HIDDEN)]
        self.smooth_qkv = nn.Parameter(torch.ones(HIDDEN))
        self.smooth_fc1 = nn.Parameter(torch.ones(HIDDEN))
        self.smooth_fc2 = nn.Parameter(torch.ones(INTERMEDIATE))
        self.weights = nn.ModuleDict({name: Weight(HIDDEN if name == "down" else 0) for name in self.w})
        self.norm_weights = nn.ModuleList([Weight(0, 16), Weight(0, 16)])
        points = {
            "norm1.in": 16, "norm1.out": 8, "q": 8, "k": 8, "v": 8, "scores.q": 8, "scores.k": 8, "scores": 16,
            "mix.p": 16, "mix.v": 8, "mix": 8, "o": 16, "norm2.in": 16, "norm2.out": 8, "gate": 8, "sigmoid": 8,
            "act": 8, "up": 8, "down.in": 8, "down": 16,
        }
        self.points = nn.ModuleDict(
            {name.replace(".", "_"): Activation(bits, -8.0, 8.0) for name, bits in points.items()}
        )

    def norm(self, x, weight, index):
        weight = self.norm_weights[index](weight)
        return weight * x * HIDDEN**0.5 / torch.clamp(x.norm(dim=-1, keepdim=True), min=1e-12)

    def forward(self, x, cos, sin, mask, quantized=True):
        at = self.points if quantized else {name: (lambda t: t) for name in self.points}
        raw, scale1, scale2, scale3 = self.w, self.smooth_qkv, self.smooth_fc1, self.smooth_fc2
        if quantized:
            w = {name: raw[name] * scale1 for name in "qkv"}
            w |= {"o": raw["o"], "gate": raw["gate"] * scale2, "up": raw["up"] * scale2 / scale3[:, None]}
            w["down"] = raw["down"] * scale3
            w = {name: self.weights[name](value) for name, value in w.items()}
            n1, n2 = self.norms[0] / scale1, self.norms[1] / scale2
        else:
            w, (n1, n2) = raw, self.norms
        tokens = x.shape[0]
        h = at["norm1_out"](self.norm(at["norm1_in"](x), n1, 0))
        q = at["q"](h @ w["q"].T).view(tokens, HEADS, HEAD_DIM).transpose(0, 1)
        k = at["k"](h @ w["k"].T).view(tokens, KV_HEADS, HEAD_DIM).transpose(0, 1)
        v = at["v"](h @ w["v"].T).view(tokens, KV_HEADS, HEAD_DIM).transpose(0, 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 0) for t in (k, v))
        scores = at["scores"](at["scores_q"](q) @ at["scores_k"](k).transpose(1, 2)) / HEAD_DIM**0.5 + mask
        p = at["mix_p"](torch.softmax(scores, -1))
        mixed = at["mix"](p @ at["mix_v"](v)).transpose(0, 1).reshape(tokens, -1)
        x = x + at["o"](mixed @ w["o"].T)
        h = at["norm2_out"](self.norm(at["norm2_in"](x), n2, 1))
        gate, up = at["gate"](h @ w["gate"].T), at["up"](h @ w["up"].T)
        product = at["down_in"](at["act"](gate * at["sigmoid"](torch.sigmoid(gate))) * up)
        return x + at["down"](product @ w["down"].T)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="end with the medians after the first step as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
    angles = torch.outer(
        torch.arange(arguments.tokens).float(), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
    )
    cos, sin = torch.cat((angles.cos(),) * 2, -1), torch.cat((angles.sin(),) * 2, -1)
    mask = torch.full((arguments.tokens, arguments.tokens), float("-inf")).triu(1)
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=1e-4, weight_decay=0)
    x = torch.randn(arguments.tokens, HIDDEN)
    with torch.no_grad():
        target = x
        for block in blocks:
            target = block(target, cos, sin, mask, quantized=False)
    times = []
    for step in range(arguments.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        y = x
        for block in blocks:
            y = block(y, cos, sin, mask)
        loss = nn.functional.mse_loss(y, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"step {step}: loss {loss.item():.4g}, {wall:.2f} s, {cpu:.2f} s of CPU time", flush=True)
        times.append((wall, cpu))
    if arguments.json:
        wall, cpu = (statistics.median(column) for column in zip(*times[1:]))
        print(json.dumps({"seconds": wall, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
