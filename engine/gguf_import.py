"""A Llama GGUF file -> a Hugging Face style model directory, weights in float16 or packed.

float16 keeps the values better than bfloat16 at the same size. Packed, matrices of Q4_1 keep every
bit they have, the others get six bits a value. Knows nothing of where the file came from or where
the directory goes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine import packed
from engine.checkpoint import save_safetensors, save_shards
from engine.errors import CheckpointError
from engine.packed import Packed

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMAL, _CONTROL = 1, 3  # the token types of GGUF a byte-level vocabulary needs
_TEXT_END = ("<|endoftext|>", "<|im_end|>")
_OTHER_BITS, _OTHER_GROUP = 6, 64  # what matrices get that are not Q4_1: embeddings


def convert(
    source: Path, directory: Path, progress: Callable[[float], None], *, compact: bool = False
) -> None:
    """Writes config, generation config, tokenizer and weights of `source` into `directory`.

    In float16 the weights are one file; with `compact` they are packed, in shards with an index.
    """
    reader = GGUFReader(source)
    kind = (_field(reader, "general.architecture"), _field(reader, "tokenizer.ggml.pre"))
    if kind != ("llama", "smollm"):
        raise CheckpointError(
            f"{source} is a {kind[0]} model with a {kind[1]} tokenizer; only llama with smollm is read"
        )
    config = _config(reader) | ({"quantization": {"format": packed.FORMAT}} if compact else {})
    tokenizer = _tokenizer(reader)
    ends = [i for i in map(tokenizer.token_to_id, _TEXT_END) if i is not None]
    generation = {key: config[key] for key in ("bos_token_id", "pad_token_id")}
    _write_json(directory / "config.json", config)
    # The file's own end is the end of a chat turn; plain text ends at a document's end as well.
    _write_json(directory / "generation_config.json", {**generation, "eos_token_id": ends})
    tokenizer.save(str(directory / "tokenizer.json"), pretty=not compact)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    halves: dict[str, torch.Tensor] = {}
    weights: dict[str, torch.Tensor | Packed] = {}
    for done, tensor in enumerate(reader.tensors, start=1):
        name, part = _name(tensor.name)
        if compact:
            weights[name] = _packed(tensor, heads.get(part))
        else:
            halves[name] = _half(tensor, heads.get(part))
        progress(done / len(reader.tensors))
    if compact:
        save_shards(weights, directory)
    else:
        save_safetensors(halves, directory / "model.safetensors")


def _packed(tensor: ReaderTensor, heads: int | None) -> torch.Tensor | Packed:
    """The tensor in few bits where it is a matrix that can be."""
    if tensor.tensor_type == GGMLQuantizationType.Q4_1:
        return _repacked(_half_split(tensor.data, heads))
    values = _half(tensor, heads)
    group = math.gcd(values.shape[-1], _OTHER_GROUP)
    return (
        packed.pack(values, _OTHER_BITS, group) if packed.can_pack(values.shape, group) else values
    )


def _repacked(rows: NDArray[np.uint8]) -> Packed:
    """Rows of Q4_1 blocks of 32: scale, minimum, 16 bytes with codes i low and i + 16 high."""
    blocks = rows.reshape(len(rows), -1, 20)
    factors = np.ascontiguousarray(blocks[:, :, :4]).view(np.float16)  # [R, G, 2]
    low, high = blocks[:, :, 4:] & 15, blocks[:, :, 4:] >> 4
    codes = np.concatenate((low, high), axis=2).reshape(len(rows), -1)
    scales, minima = (torch.from_numpy(factors[:, :, i].copy()) for i in (0, 1))
    return packed.from_codes(torch.from_numpy(codes), scales, minima, bits=4)


def _half(tensor: ReaderTensor, heads: int | None) -> torch.Tensor:
    """The tensor in float16."""
    values = _half_split(dequantize(tensor.data, tensor.tensor_type), heads)
    with np.errstate(over="ignore"):  # seen below
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise CheckpointError(f"{tensor.name} has values float16 cannot hold")
    return torch.from_numpy(np.ascontiguousarray(halves))


def _half_split(rows: NDArray[Any], heads: int | None) -> NDArray[Any]:
    """With `heads`, rows of q or k back from interleaved to half-split rotary."""
    if not heads:
        return rows
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _name(gguf_name: str) -> tuple[str, str]:
    """The Hugging Face name of a tensor and the part of the layer it is."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", gguf_name)
    part = match[2] if match else ""
    if match is None or part not in _TENSORS:
        raise CheckpointError(f"tensor {gguf_name!r} is not known in a llama GGUF")
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{_TENSORS[part]}.weight", part


def _config(reader: GGUFReader) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens")),
        "hidden_size": _field(reader, "llama.embedding_length"),
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": _field(reader, "llama.attention.head_count"),
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "hidden_act": "silu",
        "max_position_embeddings": _field(reader, "llama.context_length"),
        # The file holds it in float32, where 1e-5 is 9.99…e-6.
        "rms_norm_eps": float(f"{_field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": _field(reader, "llama.rope.freq_base"),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    tokens = _field(reader, "tokenizer.ggml.tokens")
    types = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    if unknown := set(types) - {_NORMAL, _CONTROL}:
        raise CheckpointError(f"token type {min(unknown)} is not known in a byte-level vocabulary")
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise CheckpointError(f"the GGUF file has no {key}")
    return field.contents()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
