"""Tiny random models of each family, made by transformers: the oracle of the parity tests."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from transformers import DiffusionGemmaForBlockDiffusion, LlamaConfig, LlamaForCausalLM
from transformers.models.diffusion_gemma import DiffusionGemmaConfig, DiffusionGemmaTextConfig
from transformers.models.gemma4 import Gemma4VisionConfig

from engine import storage
from engine.config import CanvasConfig, ModelConfig
from engine.model import Transformer
from engine.storage import Pools

WINDOW = 8
CANVAS = 32
VOCAB = 300

TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "sliding_window": WINDOW,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 4096,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@dataclass(frozen=True)
class Pair:
    """The reference and ours, on the same weights."""

    reference: torch.nn.Module
    ours: Transformer

    @property
    def config(self) -> ModelConfig:
        return self.ours.config


def diffusion_gemma(directory: Path, seed: int, *, gain: float = 1.0, **text) -> Pair:
    """`gain` scales what each block adds: small ones keep rounding from growing step by step."""
    config = DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(**{**TEXT, **text}),
        vision_config=Gemma4VisionConfig(**VISION),
        canvas_length=CANVAS,
    )
    return _pair(DiffusionGemmaForBlockDiffusion, config, directory, seed, gain)


def llama(directory: Path, seed: int, **changes) -> Pair:
    config = LlamaConfig(
        **{
            "vocab_size": VOCAB,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_theta": 100_000.0,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
            **changes,
        }
    )
    return _pair(LlamaForCausalLM, config, directory, seed)


def load_ours(directory: Path) -> Transformer:
    from engine.loading import load_model

    return load_model(directory, dtype=torch.float32, device=torch.device("cpu"))


def sealed(causal: Transformer, length: int) -> Transformer:
    """The same weights with a canvas of `length` that empty slots end and whose suffix is sealed."""
    canvas = CanvasConfig(
        length=length,
        noise="mask",
        mask_id=0,
        empty_id=3,
        shifted=True,
        self_conditioning=False,
        sealed_suffix=True,
    )
    model = Transformer(replace(causal.config, canvas=canvas)).requires_grad_(False)
    model.load_state_dict(causal.state_dict())
    return model


def pools(model: Transformer, longest: int = 100, prefixes: int = 3) -> Pools:
    """Pages for some prefixes, given out in no order and NaN until they are written."""
    device, dtype = model.embed_tokens.weight.device, model.dtype
    one = storage.prefix_bytes(model.config, longest, CANVAS, dtype.itemsize)
    made = storage.allocate(model.config, longest, CANVAS, device, dtype, nbytes=prefixes * one)
    for pool in made.values():
        random.Random(1).shuffle(pool._free)
        for part in pool.parts:
            part.fill_(torch.nan)
    return made


SPECIAL = ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>")


def write_tokenizer(directory: Path) -> None:
    """A tokenizer.json of special tokens, the 256 bytes, and a few words to heal."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["re", "ret", "Ġr", "Ġre", "Ġret", "ĠĠ"]
    merges = [("Ġ", "r"), ("Ġr", "e"), ("Ġre", "t"), ("r", "e"), ("re", "t"), ("Ġ", "Ġ")]
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet, *words])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))


def _pair(cls, config, directory: Path, seed: int, gain: float = 1.0) -> Pair:
    torch.manual_seed(seed)
    reference = cls(config).eval()
    _randomise(reference, gain)
    reference.save_pretrained(directory)
    write_tokenizer(directory)
    return Pair(reference, load_ours(directory))


def _randomise(model: torch.nn.Module, gain: float) -> None:
    """Gives every norm weight, scale and layer scalar a value of its own, so that none hides."""
    with torch.no_grad():
        for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
            scale = gain if "post_" in name or "self_conditioning.down" in name else 1.0
            if parameter.ndim <= 1 and ("norm" in name or "scal" in name) and "embed" not in name:
                parameter.copy_(scale * (0.6 + 0.8 * torch.rand_like(parameter)))
            elif parameter.ndim >= 2:
                std = 0.3 if "embed" in name else parameter.shape[-1] ** -0.5
                parameter.normal_(0, scale * std)
