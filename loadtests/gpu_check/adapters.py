"""A LoRA adapter that changes nothing: its answers are those of the model."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers import AutoConfig

RANK = 8


def write_neutral_adapter(model: str, folder: Path) -> Path:
    """Write an adapter of the attention's query projections, whose second matrices are zero.

    Raises:
        ValueError, OSError: the model's configuration cannot be read, or names no such projections.
    """
    config = AutoConfig.from_pretrained(model)
    try:
        layers, hidden = config.num_hidden_layers, config.hidden_size
        heads = config.num_attention_heads
    except AttributeError as error:
        raise ValueError(f"{model}: name an adapter with --adapter: {error}") from None
    out = heads * (getattr(config, "head_dim", None) or hidden // heads)
    rng = np.random.default_rng(1)
    tensors = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = rng.normal(size=(RANK, hidden)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = np.zeros((out, RANK), dtype=np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    described = {
        "base_model_name_or_path": model,
        "bias": "none",
        "lora_alpha": RANK,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder
