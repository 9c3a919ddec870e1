"""A hole written in several ways at once, and what could be copied in its place, through the engine."""

import math
from dataclasses import replace

import pytest

from engine import beams
from engine import request as vocabulary
from engine.config import BeamConfig, EngineConfig
from engine.infill import Filled
from engine.request import InfillRequest, InfillResult, Mode, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
from engine.verify import Weigh
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
    policy = BeamConfig(width=2, behind=8.0, doubt=1e9)
    config = EngineConfig(model=directory, device="cpu", warm_start=False, beams=policy)
    return Engine("sealed", config, model, tokenizer)


def changed(engine: Engine, **options) -> Engine:
    return Engine("other", replace(engine._config, **options), engine._model, engine._tokenizer)


def texts_of(result: InfillResult) -> list[str]:
    return [result.text, *(other.text for other in result.alternatives)]


@pytest.mark.parametrize("better", ["copied", "written"])
def test_what_reader_and_writer_speak_for_is_the_answer_and_the_others_are_left(
    engine, monkeypatch, better
):
    rank = Weigh.rank

    def ranked(self, model, cache, fills, chances, suffix, lead):
        assert len(fills) == len(chances)
        found = rank(self, model, cache, fills, chances, suffix, lead)
        return sorted(found, key=lambda fill: len(fill.ids), reverse=better == "written")

    monkeypatch.setattr(Weigh, "rank", ranked)
    result = engine.infill(ASKED, cancelled=never)
    texts = texts_of(result)
    assert len(texts) > 2 and len(set(texts)) == len(texts)
    assert COPY in texts
    assert (result.text == COPY) == (better == "copied")
    if better == "copied":
        assert result.stop is StopReason.COMPLETE
        assert len(COPY) <= result.evidence.tokens, "a token a letter"


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


def test_texts_that_read_alike_count_together(engine, monkeypatch):
    """One that ends in its line's end and one that ends by itself are the same text."""
    encode = engine._tokenizer.encode  # with the last token of the prefix, which is written anew
    line, alike, other = (encode(text) for text in ("(ab\n", "(ab", "(ac"))
    texts = [filled(other, -1.0), filled(alike, -1.5), filled(line, -1.5)]
    monkeypatch.setattr(beams, "fill", lambda *place, **options: texts)
    told = []

    def rank(self, model, cache, fills, chances, suffix, lead):
        told.extend(zip([fill.ids for fill in fills], chances, strict=True))
        return list(fills)

    monkeypatch.setattr(Weigh, "rank", rank)
    engine.infill(replace(ASKED, prefix="f("), cancelled=never)
    assert [ids for ids, _ in told] == [tuple(alike), tuple(other)]
    assert [chance for _, chance in told] == pytest.approx([-1.5 + math.log(2), -1.0])


@pytest.mark.parametrize(("behind", "read"), [(0.4, ["(ac", "(ab"]), (0.6, [])])
def test_only_texts_about_as_likely_as_the_best_are_read(engine, monkeypatch, behind, read):
    tokenizer = engine._tokenizer
    texts = [
        filled(tokenizer.encode(text), total)
        for text, total in (("(ac", -1.0), ("(ab", -1.0 - behind), ("(ad", -3.0))
    ]
    monkeypatch.setattr(beams, "fill", lambda *place, **options: texts)
    told = []

    def rank(self, model, cache, fills, chances, suffix, lead):
        told.extend(tokenizer.decode(fill.ids) for fill in fills)
        return list(reversed(fills))

    monkeypatch.setattr(Weigh, "rank", rank)
    doubting = changed(engine, beams=BeamConfig(doubt=0.5))
    result = doubting.infill(replace(ASKED, prefix="f("), cancelled=never)
    assert told == read
    assert texts_of(result) == (["ab", "ac", "ad"] if read else ["ac", "ab", "ad"])
    assert result.forwards == 3 + bool(read)


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
    assert result.forwards == 1 and result.alternatives == ()
    assert result.stop in (StopReason.DEADLINE, StopReason.COMPLETE)
