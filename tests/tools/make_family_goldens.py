#!/usr/bin/env python3
"""Makes folders of tests/goldens/architectures: a tiny random model for the settings given below, and what transformers answers for
it. Needs torch and transformers (5.24), and no network.

usage: make_family_goldens.py [NAME ...]

Every NAME of MODELS, or all of them. `config.json` is written as it stands here, be it in an old spelling, and transformers reads it from
the folder as qeval will. Folders that are not named here were reduced from whole goldens (reduce_goldens.py).

Settings are to show what they do: eps 0.01, windows and original lengths well below the 130 tokens that are scored, soft caps that bend,
factors other than 1, and sizes of which no two are alike, so that no tensor fits in another's place.
"""
import json, os, shutil, sys, zlib

import torch
from safetensors.torch import save
from transformers import AutoConfig, AutoModelForCausalLM

from reduce_goldens import TARGET, answers, write

SIZES = {"vocab_size": 200, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
MODELS = {
    "arcee": {"model_type": "arcee", "architectures": ["ArceeForCausalLM"], "rms_norm_eps": 0.01, "attention_bias": True, "mlp_bias": True,
              "rope_theta": 5000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    "glm4_moe": {"model_type": "glm4_moe", "architectures": ["Glm4MoeForCausalLM"], "head_dim": 20, "rms_norm_eps": 0.01, "attention_bias": True,
                 "use_qk_norm": True, "partial_rotary_factor": 0.4, "rope_theta": 500.0, "moe_intermediate_size": 18, "n_routed_experts": 12,
                 "num_experts_per_tok": 3, "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7},
    "helium": {"model_type": "helium", "architectures": ["HeliumForCausalLM"], "head_dim": 12, "rms_norm_eps": 0.01, "attention_bias": True,
               "mlp_bias": True, "rope_theta": 500.0},
    "phimoe": {"model_type": "phimoe", "architectures": ["PhimoeForCausalLM"], "rms_norm_eps": 0.01, "attention_bias": True, "lm_head_bias": True,
               "intermediate_size": 28, "num_local_experts": 5, "num_experts_per_tok": 2, "router_jitter_noise": 0.1, "rope_theta": 500.0},
    "vaultgemma": {"model_type": "vaultgemma", "architectures": ["VaultGemmaForCausalLM"], "head_dim": 16, "rms_norm_eps": 0.01,
                   "query_pre_attn_scalar": 24, "sliding_window": 20, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
                   "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": True},
}


def randomize(model):
    """Logits of which most are far from alike; a few outlier channels, so that smoothing has work to do."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias"):
                values.normal_(0, 0.2)
            elif values.dim() == 1:  # around the 1 or the 0 that stands for it
                values.add_(0.2 * torch.randn_like(values))
                values[torch.randint(len(values), (2,))] += 4
            else:
                values.normal_(0, 0.25 if "embed" in name else 1.3 / values.shape[-1] ** 0.5)
            values.copy_(values.to(torch.bfloat16))
        for name, values in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                values.copy_((0.3 * torch.randn_like(values)).to(torch.bfloat16))


def make(name, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as file:
        json.dump(SIZES | MODELS[name], file, indent=2)
        file.write("\n")
    torch.manual_seed(zlib.crc32(name.encode()))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    randomize(model)
    tied = set(model.all_tied_weights_keys)
    weights = {key: value.to(torch.bfloat16).contiguous() for key, value in model.state_dict().items() if key not in tied}
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(save(weights, metadata={"format": "pt"}))

    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                         experts_implementation="eager",
                                                         output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            sys.exit(f"{name}: {what} {sorted(report[what])}")
    ids = torch.randint(3, model.config.vocab_size, (2, 130))
    with torch.no_grad():
        logits = model.eval()(ids).logits
    ids = ids.tolist()
    write(folder, {"input_ids": ids, "float": answers((logits.shape, logits.flatten().tolist()), ids)})
    print(f"{name}: standard deviation of the logits {logits.std().item():.2f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        if name not in MODELS:
            sys.exit(f"{name}; accepted: {', '.join(MODELS)}")
        make(name, f"{TARGET}/architectures/{name}")
