"""A Llama of any size with random weights, as a Hugging Face folder without a tokenizer: for time and memory only.

usage: synthetic_model.py FOLDER [--shape tinyllama|smollm2] [--layers N] [--dtype f16|bf16|f32]
"""

import argparse
import json
import random
import struct
from pathlib import Path

SHAPES = {
    "tinyllama": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
                  "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False},
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
}
FORMATS = {"f16": ("F16", 2, "<e"), "bf16": ("BF16", 2, None), "f32": ("F32", 4, "<f")}


def tensors(config):
    """(name, shape) of every tensor; norms have one dimension."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    keys = hidden // heads * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{norm}.weight", (hidden,)
        for name, shape in (("q", (hidden, hidden)), ("k", (keys, hidden)), ("v", (keys, hidden)), ("o", (hidden, hidden))):
            yield f"{at}self_attn.{name}_proj.weight", shape
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            yield f"{at}mlp.{name}_proj.weight", shape
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def encode(value, kind):
    if kind == "bf16":
        return struct.pack("<f", value)[2:]
    return struct.pack(FORMATS[kind][2], value)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--dtype", choices=FORMATS, default="f16")
    arguments = parser.parse_args()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "max_position_embeddings": 8192, "bos_token_id": 1, "eos_token_id": 2,
              "torch_dtype": {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}[arguments.dtype],
              **SHAPES[arguments.shape]}
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    kind, size, _ = FORMATS[arguments.dtype]
    header, end = {}, 0
    for name, shape in tensors(config):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + count * size]}
        end += count * size
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=1))
    # One megabyte of values, again and again from another place: as good as new ones for time and memory.
    generator = random.Random(1)
    block = b"".join(encode(generator.gauss(0, 0.02), arguments.dtype) for _ in range(500_009))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(arguments.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in header.values():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            if len(entry["shape"]) == 1:
                file.write(encode(1.0, arguments.dtype) * (left // size))
                continue
            start = generator.randrange(500_009) * size
            while left > 0:
                part = block[start : start + left]
                file.write(part)
                left -= len(part)
                start = 0
    print(f"{arguments.folder}: {end / 1e6:.0f} MB of weights")


if __name__ == "__main__":
    main()
