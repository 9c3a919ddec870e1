"""What was written against what could be copied in its place, through the engine."""

import math
from dataclasses import replace

import pytest

from engine import beams
from engine import request as vocabulary
from engine.config import BeamConfig, CanvasConfig, EngineConfig
from engine.infill import Filled
from engine.model import Transformer
from engine.request import InfillRequest, Mode, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
from engine.verify import Verify, Weigh
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
    config = EngineConfig(
        model=directory, device="cpu", favour_copies=False, warm_start=False, beams=None
    )
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


def with_beams(engine: Engine, **options) -> Engine:
    config = replace(engine._config, beams=BeamConfig(width=2, behind=8.0), **options)
    return Engine("beams", config, engine._model, engine._tokenizer)


@pytest.mark.parametrize("better", ["copied", "written"])
def test_one_line_is_written_in_several_ways_beside_what_could_be_copied(
    engine, monkeypatch, better
):
    """What a causal reading and the writer speak for is the answer, and the others are left."""
    rank = Weigh.rank

    def ranked(self, model, cache, fills, chances, suffix, lead):
        assert len(fills) == len(chances)
        found = rank(self, model, cache, fills, chances, suffix, lead)
        return sorted(found, key=lambda fill: len(fill.ids), reverse=better == "written")

    monkeypatch.setattr(Weigh, "rank", ranked)
    result = with_beams(engine).infill(ASKED, cancelled=never)
    texts = [result.text, *(other.text for other in result.alternatives)]
    assert len(texts) > 2 and len(set(texts)) == len(texts)
    assert COPY in texts
    assert (result.text == COPY) == (better == "copied")
    alone = with_beams(engine, rivals=False).infill(ASKED, cancelled=never)
    assert COPY not in [alone.text, *(other.text for other in alone.alternatives)]


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
    with_beams(engine).infill(replace(ASKED, prefix="f("), cancelled=never)
    assert [ids for ids, _ in told] == [tuple(other), tuple(alike)]
    assert [chance for _, chance in told] == pytest.approx([-1.0, -1.5 + math.log(2)])


def filled(ids, total: float) -> Filled:
    logs = (total, *[0.0] * (len(ids) - 1))
    return Filled(ids=tuple(ids), stop=StopReason.COMPLETE, forwards=3, log_probabilities=logs)


@pytest.mark.parametrize("asked", [{"single_line": False}, {"hole_tokens": 4}])
def test_several_lines_and_holes_of_known_length_are_written_once(engine, monkeypatch, asked):
    monkeypatch.setattr(beams, "fill", None)
    request = replace(ASKED, max_tokens=6, **asked)
    assert with_beams(engine).infill(request, cancelled=never).mode is Mode.FIM


def test_at_the_deadline_one_line_is_the_best_so_far(engine):
    result = with_beams(engine).infill(replace(ASKED, deadline_ms=1e-6), cancelled=never)
    assert result.forwards == 1 and result.alternatives == ()
    assert result.stop in (StopReason.DEADLINE, StopReason.COMPLETE)
