"""The released DiffusionGemma 26B-A4B as its files describe it, for plans, benchmarks and tests.

Text model only. The weights are not here, and nothing is fetched.
"""

from __future__ import annotations

from typing import Any

from engine import hf_config
from engine.config import ModelConfig

NAME = "DiffusionGemma 26B-A4B"

# As the release writes it: no attention_k_eq_v, the full layers' shapes under global_ names.
CONFIG: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 256,
    "tie_word_embeddings": True,
    "text_config": {
        "vocab_size": 262_144,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "sliding_window": 1024,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "hidden_activation": "gelu_pytorch_tanh",
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 262_144,
        "pad_token_id": 0,
        "eos_token_id": [1, 106],
        "bos_token_id": 2,
    },
}
GENERATION: dict[str, Any] = {"eos_token_id": [1, 50, 106], "max_denoising_steps": 48}


def config() -> ModelConfig:
    """The configuration as the engine reads it."""
    return hf_config.model_config(CONFIG, GENERATION)
