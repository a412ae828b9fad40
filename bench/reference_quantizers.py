"""4-bit weights by another program, from the calibration ids that qeval takes, to be compared with qeval's own.

usage: reference_quantizers.py gptq|awq MODEL IDS OUT [--group N]

MODEL is a Hugging Face folder in float, IDS a file with an array of token ids on each line (--calibration-ids), OUT
the folder to write. gptq is GPTQModel's (columns by falling diagonal, groups fixed before, damping 1 %, ranges from
min and max: what qeval does), awq llm-compressor's. --group 0 makes a grid for each output channel. Then:

    qeval quantize -m MODEL --method gptq --scheme w4a16-gN --calibration-ids IDS -o OWN
    qeval divergence -m MODEL --with OUT --with OWN -f TEXT
"""

import argparse
import json
import os
import shutil
from pathlib import Path


def read_ids(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def gptq(args):
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # fewer than its loader asks for is an error on two cores
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=4, group_size=args.group or -1, sym=False, desc_act=True, static_groups=True,
                            act_group_aware=False, damp_percent=0.01, mse=0.0, device="cpu")
    model = GPTQModel.load(args.model, config, dtype=torch.float32)
    model.quantize([{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
                    for ids in read_ids(args.ids)], batch_size=1)
    model.save(args.out)


def awq(args):
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.awq import AWQModifier
    from transformers import AutoModelForCausalLM

    torch.Tensor.pin_memory = lambda self, *unused, **unused_too: self  # there is no device to pin for
    rows = read_ids(args.ids)
    grid = {"strategy": "group", "group_size": args.group} if args.group else {"strategy": "channel"}
    weights = {"num_bits": 4, "type": "int", "symmetric": False, **grid}
    recipe = AWQModifier(ignore=["lm_head"], config_groups={"group_0": {"targets": ["Linear"], "weights": weights}})
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    samples = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(ids) for ids in rows]})
    oneshot(model=model, dataset=samples, recipe=recipe, num_calibration_samples=len(rows),
            max_seq_length=max(map(len, rows)), shuffle_calibration_samples=False, processor=args.model)
    model.save_pretrained(args.out, save_compressed=True)
    for file in Path(args.model).glob("tokenizer*"):
        shutil.copy(file, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("gptq", "awq"))
    parser.add_argument("model")
    parser.add_argument("ids")
    parser.add_argument("out")
    parser.add_argument("--group", type=int, default=64)
    args = parser.parse_args()
    {"gptq": gptq, "awq": awq}[args.method](args)


if __name__ == "__main__":
    main()
