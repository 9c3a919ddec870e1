"""A hole written in several ways at once, and what could be copied in its place, through the engine."""

from dataclasses import replace

import pytest

from engine import beams
from engine import request as vocabulary
from engine.config import BeamConfig, EngineConfig
from engine.infill import Filled
from engine.model import Transformer
from engine.request import InfillRequest, InfillResult, Mode, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
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
    model = tiny.sealed(tiny.load_ours(directory), length=128)
    texts = [tokenizer.decode([i]) for i in range(tiny.VOCAB)]
    odd = [i for i, text in enumerate(texts) if not (text and text.isascii())]
    model.embed_tokens.weight[odd] = 0  # a logit of 0 is never the highest
    policy = BeamConfig(width=2, behind=8.0)
    config = EngineConfig(model=directory, device="cpu", warm_start=False, beams=policy)
    return Engine("sealed", config, model, tokenizer)


def changed(engine: Engine, **options) -> Engine:
    return Engine("other", replace(engine._config, **options), engine._model, engine._tokenizer)


def texts_of(result: InfillResult) -> list[str]:
    return [result.text, *(other.text for other in result.alternatives)]


def test_the_likeliest_text_is_the_answer_and_the_others_are_left(engine):
    result = engine.infill(ASKED, cancelled=never)
    texts = texts_of(result)
    assert len(texts) > 2 and len(set(texts)) == len(texts)
    assert COPY in texts


def test_a_copy_that_is_likelier_than_what_is_written_is_the_answer(engine, monkeypatch):
    ids = {}

    def search(model, cache, canvas, policy, stop_at, control, *, offered, **options):
        ids["copy"] = offered[0]
        return [filled(engine._tokenizer.encode(" other"), -2.0), filled(offered[0], -1.0)]

    monkeypatch.setattr(beams, "fill", search)
    result = engine.infill(ASKED, cancelled=never)
    assert (result.text, result.tokens) == (COPY, len(ids["copy"]))


def test_nothing_is_copied_where_that_is_off_or_little_around_it_is_the_same(engine):
    assert COPY not in texts_of(changed(engine, rivals=False).infill(ASKED, cancelled=never))
    elsewhere = replace(ASKED, prefix="def other():\n    ")
    assert COPY not in texts_of(engine.infill(elsewhere, cancelled=never))


def test_of_texts_nearly_as_likely_the_valid_one_is_taken(engine, monkeypatch):
    found = engine.infill(ASKED, cancelled=never)
    other = found.alternatives[-1]
    monkeypatch.setattr(vocabulary, "NEARLY", 1.0)
    result = engine.infill(ASKED, cancelled=never, valid=lambda text: text == other.text)
    assert (result.text, result.alternatives[0].text) == (other.text, found.text)
    assert engine.infill(ASKED, cancelled=never, valid=lambda text: False).text == found.text


def test_the_cache_serves_the_next_request_as_if_nothing_had_been_compared(engine):
    alone = changed(engine, beams=None)
    engine.infill(ASKED, cancelled=never)
    alone.infill(ASKED, cancelled=never)
    following = replace(ASKED, prefix=ASKED.prefix + "x", suffix=")\n", hole_tokens=8)
    ours, theirs = (each.infill(following, cancelled=never) for each in (engine, alone))
    assert (ours.text, ours.cached_tokens) == (theirs.text, theirs.cached_tokens)


def test_a_few_typed_tokens_are_encoded_with_the_first_forward(engine, monkeypatch):
    typed = replace(ASKED, prefix=ASKED.prefix + "w")
    cold = changed(engine).infill(typed, cancelled=never)
    warm = changed(engine)
    warm.infill(ASKED, cancelled=never)
    monkeypatch.setattr(Transformer, "encode", None)
    ours = warm.infill(typed, cancelled=never)
    assert 0 < ours.prompt_tokens - ours.cached_tokens < 16
    assert texts_of(ours) == texts_of(cold)
    assert ours.confidence == pytest.approx(cold.confidence, rel=1e-3)
    again = warm.infill(typed, cancelled=never)
    assert again.cached_tokens == again.prompt_tokens
    assert texts_of(again) == texts_of(cold)


def test_texts_that_read_alike_count_together(engine, monkeypatch):
    """One that ends in its line's end and one that ends by itself are the same text."""
    encode = engine._tokenizer.encode  # with the last token of the prefix, which is written anew
    line, alike, other = (encode(text) for text in ("(ab\n", "(ab", "(ac"))
    texts = [filled(other, -1.0), filled(alike, -1.5), filled(line, -1.5)]
    monkeypatch.setattr(beams, "fill", lambda *place, **options: texts)
    result = engine.infill(replace(ASKED, prefix="f("), cancelled=never)
    assert texts_of(result) == ["ab", "ac"]


def filled(ids, total: float) -> Filled:
    logs = (total, *[0.0] * (len(ids) - 1))
    return Filled(ids=tuple(ids), stop=StopReason.COMPLETE, forwards=3, log_probabilities=logs)


@pytest.mark.parametrize("known", ["length", "way"])
def test_a_hole_of_known_length_is_written_once_and_so_is_any_without_beams(
    engine, monkeypatch, known
):
    monkeypatch.setattr(beams, "fill", None)
    request = replace(ASKED, max_tokens=6, hole_tokens=4 if known == "length" else None)
    once = engine if known == "length" else changed(engine, beams=None)
    result = once.infill(request, cancelled=never)
    assert result.mode is Mode.FIM and result.alternatives == ()


def test_at_the_deadline_one_line_is_the_best_so_far(engine):
    result = engine.infill(replace(ASKED, deadline_ms=1e-6), cancelled=never)
    assert result.forwards == 1
    assert result.stop in (StopReason.DEADLINE, StopReason.COMPLETE)
