"""The Engine with its prefixes in pages, as it is set up on a GPU, against the same in buffers."""

from dataclasses import replace

import pytest
import torch

from engine.config import EngineConfig, SamplerConfig
from engine.errors import Cancelled
from engine.fit import OutOfMemory
from engine.model import Transformer
from engine.request import InfillRequest, Mode
from engine.runtime import Engine
from engine.storage import PoolExhausted
from tests.engine import tiny
from tests.engine.test_runtime import never

FILE = "def area(width, height):\n    total = width * height\n    return total\n\n"
OTHER = "import os\n\n\nclass Reader:\n    def __init__(self, path):\n        "
REQUESTS = (
    InfillRequest(prefix=FILE, suffix="\n\nb = 2\n", hole_tokens=6),
    InfillRequest(prefix=FILE + "x = ", suffix="\n\nb = 2\n", hole_tokens=6),
    InfillRequest(prefix=OTHER, suffix="\n\n    def close(self):\n", max_tokens=8),
    InfillRequest(prefix=OTHER + "se", max_tokens=40, mode=Mode.CAUSAL),
    InfillRequest(prefix=FILE + "x = wi", suffix="\n", max_tokens=8),
    InfillRequest(prefix=FILE[:30], suffix="\n", max_tokens=5),
    InfillRequest(prefix=FILE + OTHER, prepare=True),
    InfillRequest(prefix=FILE + OTHER + "self.", suffix="\n", hole_tokens=12),
    InfillRequest(prefix=OTHER, max_tokens=3, mode=Mode.CAUSAL),
)


def made(directory, **changes) -> Engine:
    sampler = SamplerConfig(max_steps=4)
    return Engine.load(
        EngineConfig(model=directory, device="cpu", dtype="float32", sampler=sampler, **changes)
    )


def in_pages(engine: Engine, longest: int = 400, prefixes: int = 2) -> Engine:
    """The same in pages, as on a GPU."""
    config = replace(engine.config, max_prompt_tokens=longest, prefill_chunk=32)
    pools = tiny.pools(engine._model, longest, prefixes)
    return Engine("paged", config, engine._model, engine._tokenizer, pools)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Engine:
    directory = tmp_path_factory.mktemp("gemma")
    tiny.diffusion_gemma(directory, seed=3, gain=0.35)
    return made(directory)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Engine:
    directory = tmp_path_factory.mktemp("llama")
    tiny.llama(directory, seed=4, bos_token_id=2)
    return made(directory)


def used(engine: Engine) -> int:
    return sum(pool.used for pool in engine._pools.values())


@pytest.mark.parametrize("name", ["gemma", "llama"])
def test_requests_are_answered_as_from_buffers(name, request):
    plain = request.getfixturevalue(name)
    config = replace(plain.config, max_prompt_tokens=400, prefill_chunk=32)
    plain, paged = plain.under(config), in_pages(plain)
    for asked in REQUESTS:
        if name == "llama":
            asked = replace(asked, mode=Mode.AUTO)
        ours, theirs = (engine.infill(asked, cancelled=never) for engine in (paged, plain))
        assert (ours.text, ours.forwards) == (theirs.text, theirs.forwards)
        assert [a.text for a in ours.alternatives] == [a.text for a in theirs.alternatives]
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-3)
        assert ours.cached_tokens == theirs.cached_tokens
        paged.rest()
    assert paged.describe()["cached_prefixes"] > 1
    assert paged.describe()["cache_bytes"] > 0
    paged._prefixes.clear()
    assert used(paged) == 0


def test_what_was_encoded_before_a_cancellation_is_kept(gemma):
    engine, checks = in_pages(gemma), []
    asked = InfillRequest(prefix=FILE + OTHER, suffix="\n", hole_tokens=4)
    with pytest.raises(Cancelled):
        engine.infill(asked, cancelled=lambda: bool(checks.append(1)) or len(checks) > 2)
    result = engine.infill(asked, cancelled=never)
    assert result.cached_tokens == 64
    assert result.text == in_pages(gemma).infill(asked, cancelled=never).text


def test_lack_of_memory_gives_all_pages_back(gemma, monkeypatch):
    def exhausted(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = in_pages(gemma)
    expected = engine.infill(REQUESTS[0], cancelled=never).text
    with monkeypatch.context() as patched:
        patched.setattr(Transformer, "_layers", exhausted)
        with pytest.raises(OutOfMemory):
            engine.infill(replace(REQUESTS[0], seed=1), cancelled=never)
    assert used(engine) == 0
    assert engine.infill(REQUESTS[0], cancelled=never).text == expected


def test_a_text_that_outgrows_the_pages_is_told_and_the_engine_lives_on(llama, monkeypatch):
    engine = in_pages(llama, longest=64, prefixes=1)
    asked = InfillRequest(prefix="a = 1\n" * 40, max_tokens=120)
    monkeypatch.setattr(llama._model, "config", replace(llama._model.config, eos_ids=()))
    with pytest.raises(PoolExhausted, match=r"pages hold 128 tokens; .* --max-prompt-tokens N"):
        engine.infill(asked, cancelled=never)
    assert engine.infill(replace(asked, max_tokens=4), cancelled=never).tokens > 0


def test_an_engine_set_up_another_way_has_the_same_pages_to_itself(llama):
    engine = in_pages(llama)
    engine.infill(REQUESTS[2], cancelled=never)
    other = engine.under(replace(engine.config, drafts=False))
    assert other._pools is engine._pools and used(other) == 0
    other.infill(REQUESTS[2], cancelled=never)
    assert used(other) > 0
