"""What a GPU's free memory makes of the settings; the GPU is scripted."""

import json

import pytest
import torch

from engine import fit, plan, released
from engine.config import EngineConfig
from engine.plan import DoesNotFit

CONFIG = released.config()
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Sets how many bytes the GPU has free."""

    def free(size):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(size), int(99e9)))

    return free


def engine_config(directory, config=released.CONFIG, **changes) -> EngineConfig:
    (directory / "config.json").write_text(json.dumps(config))
    return EngineConfig(model=directory, **changes)


@pytest.mark.parametrize(
    ("free", "precision", "head_copy", "prompt"),
    [
        (80e9, "bf16", False, 8192),
        (40e9, "fp8", True, 8192),
        (24e9, "int4", True, 8192),
        (18e9, "int4", False, 8192),
        (17.3e9, "int4", False, 1280),
    ],
)
def test_precision_head_and_prompt_follow_the_memory(
    tmp_path, gpu, free, precision, head_copy, prompt
):
    gpu(free)
    fitted = fit.fit(engine_config(tmp_path), CONFIG, CUDA)
    assert (fitted.quantize, fitted.head_copy) == (precision, head_copy)
    assert fitted.max_prompt_tokens == prompt
    one = plan.cache_bytes(CONFIG, prompt)
    assert one <= fitted.cache_bytes <= 1 << 30, "prefixes together stay in what is planned"
    assert (fitted.cache_bytes == 1 << 30) == (free > 20e9)


def test_what_was_asked_for_is_kept_and_only_the_prompt_adapts(tmp_path, gpu):
    gpu(28.8e9)
    fitted = fit.fit(engine_config(tmp_path, quantize="fp8"), CONFIG, CUDA)
    assert fitted.quantize == "fp8"
    assert 512 <= fitted.max_prompt_tokens < 8192
    gpu(80e9)
    asked = engine_config(tmp_path, quantize="int4", max_prompt_tokens=3000)
    assert fit.fit(asked, CONFIG, CUDA).max_prompt_tokens == 3000


@pytest.mark.parametrize("asked", [{"quantize": "bf16"}, {"dtype": "bfloat16"}])
def test_what_was_asked_for_and_does_not_fit_is_refused(tmp_path, gpu, asked):
    gpu(24e9)
    with pytest.raises(DoesNotFit, match=r"bf16, the smallest form, takes 50.5 GB of weights"):
        fit.fit(engine_config(tmp_path, **asked), CONFIG, CUDA)


def test_files_in_few_bits_take_what_they_take(tmp_path, gpu):
    packed = {**released.CONFIG, "quantization_config": {"quant_method": "compressed-tensors"}}
    config = engine_config(tmp_path, packed)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    gpu(4e9)
    fitted = fit.fit(config, CONFIG, CUDA)
    assert (fitted.quantize, fitted.max_prompt_tokens) == ("bf16", 8192)
    (tmp_path / "config.json").write_text(json.dumps(released.CONFIG))
    with pytest.raises(DoesNotFit):
        fit.fit(config, CONFIG, CUDA)


def test_a_cpu_rounds_nothing_unasked(tmp_path):
    for asked, given in (("auto", "bf16"), ("int4", "int4")):
        fitted = fit.fit(engine_config(tmp_path, quantize=asked), CONFIG, CPU)
        assert (fitted.quantize, fitted.max_prompt_tokens) == (given, None)


def test_the_advice_names_what_is_free(gpu):
    gpu(1.25e9)
    said = fit.advice(CUDA, "filling a hole")
    assert "ran out on cuda while filling a hole" in said
    assert "1.2 of 99.0 GB are free now" in said


def test_plans_agree_with_the_engines_usual_prompt():
    assert fit.PROMPT_TOKENS == plan.WANTED_CONTEXT == 8192
