#!/usr/bin/env python3
"""Makes tests/goldens/architectures, simulated and quantized from the whole goldens. Standard library only.

usage: reduce_goldens.py SHARED_GOLDENS

A tiny model's folder keeps its configuration and weights. Of its expected logits only what the checks compare is kept, in
`expected.json`: the log-probability and the arg-max at every position (and, of simulated ones, the limit that the float64
twin sets and the calibration ids; of quantized ones, the limits, and of dequantized weights the SHA-256). Cases that differ from another one in nothing but sizes are left out.
"""
import hashlib, json, os, shutil, sys

from check_goldens import logprobs, rows, safetensors

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.join(HERE, "..", "goldens")
ARCHITECTURES = """apertus cohere cohere-qknorm cohere2 ernie4_5 exaone4-hybrid gemma2 gemma3-legacy gemma3-nested glm glm4 gpt2
gpt_neox-parallel gpt_neox-serial granite hunyuan_v1_dense llama-dynamic llama-yarn minicpm3 ministral3 mistral-window nemotron
olmo2 olmo3 opt opt-350m phi-qknorm phi3-long phi3-short qwen2-window qwen3-yarn seed_oss smollm3-nope stablelm-qknorm
starcoder2 ernie4_5_moe falcon_h1 gemma3n gemma4-dense gemma4-moe gemma4-nested gemma4-ple gpt_oss granitemoe
granitemoehybrid lfm2 mixtral olmoe qwen2_moe qwen3_5-nested qwen3_moe-norm qwen3_moe-raw qwen3_next""".split()
SIMULATED = """cohere-w8a8 cohere-qknorm-w8a8 gemma2-w8a8 gemma3_text-w4a8 granite-w8a8 mistral-w8a8 olmo2-w8a8 phi3-w8a8 qwen2-w8a8
qwen3-w8a8 qwen3_moe-w4a8 qwen3_moe-w8a8 smollm3-w8a8""".split()
GGUF = """gguf-iq1-m gguf-iq1-s gguf-iq2-s gguf-iq2-xs gguf-iq2-xxs gguf-iq3-s gguf-iq3-xxs gguf-iq4-nl gguf-iq4-xs
gguf-mxfp4 gguf-nvfp4 gguf-split gguf-tq1-0 gguf-tq2-0""".split()
QUANTIZED = """autoround-awq-w4-g32-asym autoround-gptq-w4-g128-sym awq-w4-g32-qwen2 bnb-int8 bnb-nf4-double ct-fp8-block
ct-kv-fp8 ct-mixed ct-mxfp4a16 ct-nvfp4 ct-w3a16-g32-old ct-w4a16-g32-actorder ct-w6a16-g64-asym-new
ct-w8a8-int-dynamic ct-w8a8-int-static fp8-block-deepseek fp8-fbgemm fp8-tensor-static gemma-quant-gemma3 gemma-quant-gemma4 gpt-oss-mxfp4
gptq-dynamic gptq-p-w5-g32-asym gptq-w2-g32-asym-v2 gptq-w3-g32-asym gptq-w4-g32-asym-v1-borrow gptq-w4-g32-descact
gptq-w4-g32-lmhead gptq-w4-gm1-sym-old modelopt-nvfp4 torchao-intx4""".split()


def answers(logits, ids):
    values, top = logprobs(logits, ids)
    return {"logprobs": [round(v, 7) for v in values], "top1": top}


def best(logits):
    """Per position but the last, the ids whose logits are the largest: rounded ones tie."""
    (B, T, V), a = logits
    out = []
    for b in range(B):
        for t in range(T - 1):
            row = a[(b * T + t) * V:(b * T + t + 1) * V]
            least = max(row) - 1e-6 * max(1, abs(max(row)))
            out.append([i for i, x in enumerate(row) if x >= least])
    return out


def copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for name in os.listdir(source):
        if name.startswith("expected") or name == "case.json":
            continue
        shutil.copy(f"{source}/{name}", f"{target}/{name}")


def write(target, expected):
    with open(f"{target}/expected.json", "w") as file:
        json.dump(expected, file, separators=(",", ":"))
        file.write("\n")


def main():
    whole = sys.argv[1]
    for name in ARCHITECTURES:
        e = safetensors(f"{whole}/architectures/{name}/expected.safetensors")
        ids = rows(e["input_ids"])
        copy(f"{whole}/architectures/{name}", f"{TARGET}/architectures/{name}")
        write(f"{TARGET}/architectures/{name}", {"input_ids": ids, "float": answers(e["logits"], ids)})
    for name in SIMULATED:
        e = safetensors(f"{whole}/simulated/{name}/expected.safetensors")
        ids = rows(e["input_ids"])
        fake = answers(e["logits_fakequant"], ids)
        twin, _ = logprobs(e["logits_fakequant_f64"], ids)
        noise = sum(abs(a - b) for a, b in zip(fake["logprobs"], twin)) / len(twin)
        copy(f"{whole}/simulated/{name}", f"{TARGET}/simulated/{name}")
        write(f"{TARGET}/simulated/{name}", {"input_ids": ids, "calibration_ids": rows(e["calibration_ids"]),
                                             "float": answers(e["logits_fp32"], ids),
                                             "fake": fake | {"limit": max(1e-3, 3 * noise)}}
              | ({"refuses": {"integer": "router of experts"}} if "moe" in name else {}))
    for name in GGUF + QUANTIZED:
        e = safetensors(f"{whole}/quantized/{name}/expected.safetensors")
        case = json.load(open(f"{whole}/quantized/{name}/case.json"))
        ids = rows(e["input_ids"])
        if name in GGUF:
            copy(f"{whole}/quantized/{name}", f"{TARGET}/quantized/{name}")
            write(f"{TARGET}/quantized/{name}", {"model": case["model"], "input_ids": ids, "float": answers(e["logits"], ids)})
            continue
        rounds = case.get("activations_quantized", False)
        expected = {"logprobs": answers(e["logits"], ids)["logprobs"], "best": best(e["logits"]),
                    "limit": max(1e-3, 3 * case["noise"]) if rounds else 2e-4, "least": case["top1_least"] if rounds else 0.99}
        weights = {key[len("weight."):]: hashlib.sha256(value[1].tobytes()).hexdigest()
                   for key, value in e.items() if key.startswith("weight.")}
        copy(f"{whole}/quantized/{name}", f"{TARGET}/quantized/{name}")
        write(f"{TARGET}/quantized/{name}", {"about": case["about"], "input_ids": ids, "own": expected, "weights": weights})
    types = safetensors(f"{whole}/quantized/gguf-types.expected.safetensors")
    shutil.copy(f"{whole}/quantized/gguf-types.gguf", f"{TARGET}/quantized/gguf-types.gguf")
    with open(f"{TARGET}/quantized/gguf-types.json", "w") as file:
        json.dump({name: hashlib.sha256(values.tobytes()).hexdigest() for name, (_, values) in types.items()}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
