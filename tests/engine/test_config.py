"""Configurations: what is read, and what is refused with the bad value in the message."""

import json

import pytest

from engine.config import EngineConfig, ModelConfig, SamplerConfig, read_json
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
    config = ModelConfig.from_hf(LLAMA, {"eos_token_id": [2, 0], "bos_token_id": 1})
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
    assert ModelConfig.from_hf({**RELEASED, "text_config": text}, {}) == ModelConfig.from_hf(
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
        ModelConfig.from_hf(config, {})


def test_sampler_defaults_are_the_releases_and_a_file_overrides_them():
    assert SamplerConfig.from_hf({}) == SamplerConfig()
    read = SamplerConfig.from_hf(
        {"max_denoising_steps": 12, "sampler_config": {"entropy_bound": 0.3}, "t_min": None}
    )
    assert read == SamplerConfig(max_steps=12, entropy_bound=0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_steps": 0}, "max_steps must be a number above 0, got 0"),
        ({"t_min": 0.9}, "0 <= t_min <= t_max, got 0.9 and 0.8"),
        ({"stability": -1}, "stability must be at least 0, got -1"),
        ({"entropy_bound": float("nan")}, "entropy_bound must be a number above 0"),
    ],
)
def test_a_sampler_that_cannot_work_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**values)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ConfigError, match="sampler 'Other' is not supported"):
        SamplerConfig.from_hf({"sampler_config": {"_cls_name": "Other"}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": -1}, "cannot be negative, got -1"),
        ({"prefill_chunk": 0}, "prefill_chunk must be a number above 0"),
        ({"max_prompt_tokens": 10}, "max_prompt_tokens must be at least 64, got 10"),
        ({"soft_tokens": 0}, "soft_tokens must be from 1 to 64, got 0"),
        ({"template": "fim"}, "template must be one of auto, chat, raw, hole, got 'fim'"),
    ],
)
def test_an_engine_that_cannot_work_is_refused(tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(model=tmp_path, **values)


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
        read_json(path)
    assert str(path) in str(error.value)


def test_a_written_config_is_read_from_a_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert ModelConfig.from_directory(tmp_path) == ModelConfig.from_hf(LLAMA, {})
