"""Configurations that cannot work are refused with the bad value in the message."""

import pytest

from engine.config import EngineConfig, SamplerConfig
from engine.errors import ConfigError


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
