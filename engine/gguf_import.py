"""A Llama GGUF file -> a Hugging Face style model directory, weights dequantised to float16.

float16 keeps the values better than bfloat16 at the same size. Knows nothing of where the file
came from or where the directory goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.errors import CheckpointError

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


def convert(source: Path, directory: Path, progress: Callable[[float], None]) -> None:
    """Writes config, generation config, tokenizer and weights of `source` into `directory`."""
    reader = GGUFReader(source)
    kind = (_field(reader, "general.architecture"), _field(reader, "tokenizer.ggml.pre"))
    if kind != ("llama", "smollm"):
        raise CheckpointError(
            f"{source} is a {kind[0]} model with a {kind[1]} tokenizer; only llama with smollm is read"
        )
    config = _config(reader)
    tokenizer = _tokenizer(reader)
    ends = [i for i in map(tokenizer.token_to_id, _TEXT_END) if i is not None]
    generation = {key: config[key] for key in ("bos_token_id", "pad_token_id")}
    _write_json(directory / "config.json", config)
    # The file's own end is the end of a chat turn; plain text ends at a document's end as well.
    _write_json(directory / "generation_config.json", {**generation, "eos_token_id": ends})
    tokenizer.save(str(directory / "tokenizer.json"))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for done, tensor in enumerate(reader.tensors, start=1):
        name, part = _name(tensor.name)
        weights[name] = _weight(tensor, heads.get(part))
        progress(done / len(reader.tensors))
    try:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # its way to say that the disk is full
        raise CheckpointError(f"cannot write {directory}/model.safetensors: {error}") from None


def _weight(tensor: ReaderTensor, heads: int | None) -> np.ndarray[Any, np.dtype[np.float16]]:
    """The tensor in float16; with `heads`, its rows back from interleaved to half-split rotary."""
    values = dequantize(tensor.data, tensor.tensor_type)
    if heads:
        rows, columns = values.shape
        values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2)
        values = values.reshape(rows, columns)
    with np.errstate(over="ignore"):  # seen below
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise CheckpointError(f"{tensor.name} has values float16 cannot hold")
    return np.ascontiguousarray(halves)


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
