"""The conversion of a GGUF file: names, layout of q and k, values, tokenizer, configuration."""

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

from engine.cache import PrefixCache
from engine.checkpoint import model_name
from engine.errors import CheckpointError
from engine.gguf_import import convert
from engine.loading import load_model
from engine.tokenizer import Tokenizer
from tests.engine import tiny_wheel

CPU = torch.device("cpu")


def converted(directory, *, compact=False, **options):
    tiny_wheel.write_gguf(directory / "tiny.gguf", **options)
    (directory / "model").mkdir()
    seen = []
    convert(directory / "tiny.gguf", directory / "model", seen.append, compact=compact)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    return directory / "model"


def test_every_weight_comes_back_under_its_name_in_float16(tmp_path):
    stored = load_file(converted(tmp_path) / "model.safetensors")
    expected = tiny_wheel.weights()
    assert stored.keys() == expected.keys()
    for name, value in expected.items():
        assert stored[name].dtype == np.float16
        np.testing.assert_array_equal(stored[name], value.astype(np.float16), err_msg=name)


def test_quantised_weights_keep_their_dequantised_value_to_half_a_unit(tmp_path):
    stored = load_file(converted(tmp_path, quantised=True) / "model.safetensors")
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, value in tiny_wheel.weights().items():
        if value.ndim == 2:  # rows are quantised each alone, so the layout of q and k is no matter
            value = gguf.dequantize(gguf.quants.quantize(value, kind), kind)
        np.testing.assert_allclose(stored[name], value, rtol=2**-11, atol=2**-25, err_msg=name)


def test_compact_a_q4_1_matrix_is_repacked_without_loss(tmp_path):
    model = converted(tmp_path, quantised=True, compact=True)
    assert not (model / "model.safetensors").exists()
    loaded = load_model(model, dtype=torch.float32, device=CPU).state_dict()
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, value in tiny_wheel.weights().items():
        if value.ndim == 2:
            value = gguf.dequantize(gguf.quants.quantize(value, kind), kind)
        else:
            value = value.astype(np.float16).astype(np.float32)
        found = loaded[model_name(name, "llama")]
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-7, err_msg=name)
    codes = load_file(model / "model-00001-of-00001.safetensors")
    assert codes["model.layers.0.self_attn.q_proj.weight.codes"].shape == (64, 8, 4)


def test_compact_other_matrices_get_six_bits_and_norms_stay(tmp_path):
    model = converted(tmp_path, compact=True)
    config = json.loads((model / "config.json").read_text())
    assert config["quantization"] == {"format": "dg-packed"}
    loaded = load_model(model, dtype=torch.float32, device=CPU).state_dict()
    for name, value in tiny_wheel.weights().items():
        found = loaded[model_name(name, "llama")].numpy()
        if value.ndim == 1:
            np.testing.assert_array_equal(found, value.astype(np.float16), err_msg=name)
        else:
            np.testing.assert_allclose(found, value, atol=np.ptp(value) / 120, err_msg=name)


def test_configuration_and_ends_of_text_are_written(tmp_path):
    model = converted(tmp_path)
    config = json.loads((model / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == 100_000
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] == 128
    generation = json.loads((model / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [0, 2]}


def test_an_output_matrix_unties_the_head(tmp_path):
    head = np.ones((len(tiny_wheel.vocabulary()[0]), tiny_wheel.HIDDEN), np.float32)
    model = converted(tmp_path, extra={"output": head})
    assert json.loads((model / "config.json").read_text())["tie_word_embeddings"] is False
    assert (load_file(model / "model.safetensors")["lm_head.weight"] == 1).all()


def test_the_tokenizer_cuts_digits_joins_merges_and_knows_its_special_tokens(tmp_path):
    tokenizer = Tokenizer.from_directory(converted(tmp_path))
    tokens, _ = tiny_wheel.vocabulary()
    text = "def x12<|im_end|>é\r\n"
    pieces = [tokens[i] for i in tokenizer.encode(text)]
    assert pieces == ["def", "Ġx", "1", "2", *"<|im_end|>", "Ã", "©", "č", "Ċ"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.special("<|im_end|>") == 2


def test_the_directory_runs_in_the_reference_and_in_the_engine_alike(tmp_path):
    model = converted(tmp_path)
    ids = list(range(3, 40))
    reference = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    ours = load_model(model, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        theirs = reference(torch.tensor([ids])).logits
        hidden = ours.encode(ids, PrefixCache(ours.config, CPU, torch.float32))
        torch.testing.assert_close(ours.logits(hidden), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "qwen2"}, "is a qwen2 model with a smollm tokenizer; only llama"),
        ({"extra": {"blk.0.attn_gate": np.ones((2, 2), np.float32)}}, "attn_gate.weight' is not"),
        ({"types": [3, 3, 3] + [6] * 260}, "token type 6 is not known"),
        ({"extra": {"output_norm": np.full(64, 1e6, np.float32)}}, "output_norm.weight has values"),
    ],
)
def test_a_file_that_is_not_such_a_model_is_refused(tmp_path, options, words):
    with pytest.raises(CheckpointError, match=words):
        converted(tmp_path, **options)


def test_a_field_that_is_missing_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "bare.gguf", "llama")
    writer.add_tokenizer_pre("smollm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"the GGUF file has no tokenizer\.ggml\.tokens"):
        convert(tmp_path / "bare.gguf", tmp_path, print)


def test_weights_that_cannot_be_written_are_reported(tmp_path):
    (tmp_path / "model" / "model.safetensors").mkdir(parents=True)
    tiny_wheel.write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(CheckpointError, match=r"cannot write .*model\.safetensors"):
        convert(tmp_path / "tiny.gguf", tmp_path / "model", lambda fraction: None)
