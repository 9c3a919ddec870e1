"""What was written against what could be copied in its place, through the engine."""

from dataclasses import replace

import pytest

from engine import request as vocabulary
from engine.config import CanvasConfig, EngineConfig
from engine.model import Transformer
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
from engine.verify import Verify
from tests.engine import tiny

COPY = "total = width * height"
ABOVE = f"def area(width, height):\n    {COPY}\n    return total\n\n\n"
ASKED = InfillRequest(
    prefix=ABOVE + "def area(width, height):\n    ",
    suffix="\n    return total\n",
    single_line=True,
)


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    """A random model that writes ASCII from left to right with the suffix in view."""
    directory = tmp_path_factory.mktemp("sealed")
    tiny.llama(directory, seed=4, bos_token_id=2)
    tokenizer = Tokenizer.from_directory(directory)
    loaded = tiny.load_ours(directory)
    canvas = CanvasConfig(
        length=128,
        noise="mask",
        mask_id=0,
        empty_id=3,
        shifted=True,
        self_conditioning=False,
        sealed_suffix=True,
    )
    model = Transformer(replace(loaded.config, canvas=canvas)).requires_grad_(False)
    model.load_state_dict(loaded.state_dict())
    texts = [tokenizer.decode([i]) for i in range(tiny.VOCAB)]
    odd = [i for i, text in enumerate(texts) if not (text and text.isascii())]
    model.embed_tokens.weight[odd] = 0  # a logit of 0 is never the highest
    config = EngineConfig(model=directory, device="cpu", favour_copies=False, warm_start=False)
    return Engine("sealed", config, model, tokenizer)


def without_rivals(engine: Engine) -> Engine:
    config = replace(engine._config, rivals=False)
    return Engine("alone", config, engine._model, engine._tokenizer)


@pytest.mark.parametrize("better", ["copied", "written"])
def test_what_reads_better_is_the_answer_and_the_other_is_left(engine, monkeypatch, better):
    written = without_rivals(engine).infill(ASKED, cancelled=never)
    assert written.mode is Mode.FIM and written.alternatives == ()
    sign = -1 if better == "copied" else 1  # it is the shorter one
    monkeypatch.setattr(Verify, "score", lambda self, reading, length: sign * length)
    result = engine.infill(ASKED, cancelled=never)
    (other,) = result.alternatives
    texts = {"copied": COPY, "written": written.text}
    assert result.text == texts.pop(better)
    assert [other.text] == list(texts.values())
    assert result.forwards == written.forwards + 1
    if better == "written":
        assert result.confidence == pytest.approx(written.confidence, abs=1e-5)
        assert result.stop is written.stop
    else:
        assert other.confidence == pytest.approx(written.confidence, abs=1e-5)
        assert result.stop is StopReason.COMPLETE
        assert len(COPY) <= result.evidence.tokens < written.tokens, "a token a letter"


def test_of_texts_nearly_as_likely_the_valid_one_is_taken(engine, monkeypatch):
    found = engine.infill(ASKED, cancelled=never)
    (other,) = found.alternatives
    monkeypatch.setattr(vocabulary, "NEARLY", 1.0)
    result = engine.infill(ASKED, cancelled=never, valid=lambda text: text == other.text)
    assert (result.text, result.alternatives[0].text) == (other.text, found.text)
    assert engine.infill(ASKED, cancelled=never, valid=lambda text: False).text == found.text


def test_nothing_is_compared_where_no_copy_has_much_around_it_that_is_the_same(engine):
    elsewhere = replace(ASKED, prefix="def other():\n    ")
    assert engine.infill(elsewhere, cancelled=never).alternatives == ()


def test_the_cache_serves_the_next_request_as_if_nothing_had_been_compared(engine):
    alone = without_rivals(engine)
    engine.infill(ASKED, cancelled=never)
    alone.infill(ASKED, cancelled=never)
    following = replace(ASKED, prefix=ASKED.prefix + "x", suffix=")\n")
    ours, theirs = (each.infill(following, cancelled=never) for each in (engine, alone))
    assert (ours.text, ours.cached_tokens) == (theirs.text, theirs.cached_tokens)
