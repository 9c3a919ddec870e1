"""Hugging Face's files: what is read, and what is refused with the bad value in the message."""

import json

import pytest

from engine import hf_config
from engine.config import SamplerConfig
from engine.errors import ConfigError
from engine.released import CONFIG as RELEASED

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e4,
}


def released_text(**changes) -> dict:
    return {**RELEASED, "text_config": {**RELEASED["text_config"], **changes}}


def test_a_llama_config_becomes_plain_pre_norm_blocks():
    config = hf_config.model_config(LLAMA, {"eos_token_id": [2, 0], "bos_token_id": 1})
    assert not (config.post_norms or config.qkv_norms or config.experts or config.is_diffusion)
    assert config.activation == "silu"
    assert config.attention_scale == 8**-0.5
    assert config.layers[0].rope_theta == 5e4
    assert (config.bos_id, config.eos_ids) == (1, (2, 0))


def test_full_layers_written_layer_by_layer_equal_those_under_global_names():
    text = dict(RELEASED["text_config"])
    del text["global_head_dim"], text["num_global_key_value_heads"]
    text["per_layer_config"] = {
        str(i): {"head_dim": 512, "num_key_value_heads": 2} for i in (5, 11, 17, 23, 29)
    }
    assert hf_config.model_config({**RELEASED, "text_config": text}, {}) == hf_config.model_config(
        RELEASED, {}
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({**LLAMA, "hidden_size": "32"}, "hidden_size is missing or of the wrong type, got '32'"),
        ({**LLAMA, "vocab_size": 0}, "vocab_size must be a number above 0, got 0"),
        ({**LLAMA, "num_key_value_heads": 3}, "multiple of kv_heads, got 4 and 3"),
        ({**LLAMA, "attention_bias": True}, "attention_bias true is not supported"),
        ({**LLAMA, "hidden_act": "relu"}, "activation 'relu' is not supported"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({**LLAMA, "eos_token_id": 100}, "eos_token_id 100 is outside the 100 ids"),
        ({**LLAMA, "num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        (released_text(top_k_experts=200), "top_k_experts 200 is more than num_experts 128"),
        (released_text(sliding_window=1), "sliding window must be at least 2, got 1"),
        (released_text(layer_types=["full_attention"]), "1 entries for 30 layers"),
        (released_text(layer_types=["linear_attention"] * 30), "'linear_attention'"),
        (released_text(use_bidirectional_attention="all"), "use_bidirectional_attention 'all'"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_bad_value(config, message):
    with pytest.raises(ConfigError, match=message):
        hf_config.model_config(config, {})


def test_sampler_defaults_are_the_releases_and_a_file_overrides_them():
    assert hf_config.sampler_config({}) == SamplerConfig()
    read = hf_config.sampler_config(
        {"max_denoising_steps": 12, "sampler_config": {"entropy_bound": 0.3}, "t_min": None}
    )
    assert read == SamplerConfig(max_steps=12, entropy_bound=0.3)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ConfigError, match="sampler 'Other' is not supported"):
        hf_config.sampler_config({"sampler_config": {"_cls_name": "Other"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "is not readable JSON"),
        ("[1]", "must hold a JSON object, got list"),
        ("[" * 100_000, "is not readable JSON"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        hf_config.read_json(path)
    assert str(path) in str(error.value)


def test_a_written_config_is_read_from_a_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert hf_config.read_model_config(tmp_path) == hf_config.model_config(LLAMA, {})
