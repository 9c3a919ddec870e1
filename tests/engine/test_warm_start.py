"""Requests that continue an earlier one: fewer forwards, the same text; or the canvas it left."""

from dataclasses import replace

import pytest

from engine import infill, search
from engine.config import EngineConfig, SamplerConfig
from engine.errors import Cancelled
from engine.infill import Filled
from engine.request import InfillRequest, StopReason
from engine.runtime import Engine
from engine.tokenizer import Tokenizer
from tests.engine import tiny

PREFIX = "def f():\n  total = "


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A causal model that writes ASCII only, as text can then be typed and encoded again."""
    directory = tmp_path_factory.mktemp("ascii")
    tiny.llama(directory, seed=4, bos_token_id=2)
    tokenizer = Tokenizer.from_directory(directory)
    model = tiny.load_ours(directory)
    texts = [tokenizer.decode([i]) for i in range(tiny.VOCAB)]
    odd = [i for i, text in enumerate(texts) if not (text and text.isascii())]
    model.embed_tokens.weight[odd] = 0  # a logit of 0 is never the highest
    return EngineConfig(model=directory, device="cpu"), model, tokenizer


def engines(loaded) -> tuple[Engine, Engine]:
    """One that remembers its answers, and one that does not."""
    config, model, tokenizer = loaded
    cold = replace(config, warm_start=False)
    return Engine("warm", config, model, tokenizer), Engine("cold", cold, model, tokenizer)


def never() -> bool:
    return False


def asked(prefix: str, suffix: str = "") -> InfillRequest:
    return InfillRequest(prefix=prefix, suffix=suffix, max_tokens=40)


def test_typing_an_answer_saves_forwards_and_changes_no_text(loaded):
    warm, cold = engines(loaded)
    answer = warm.infill(asked(PREFIX), cancelled=never).text
    saved = 0
    for prefix in (PREFIX, PREFIX + answer[:1], PREFIX + answer[:7], PREFIX[:-3]):
        for suffix in ("", "\nelsewhere()\n"):
            expected = cold.infill(asked(prefix, suffix), cancelled=never)
            result = warm.infill(asked(prefix, suffix), cancelled=never)
            assert (result.text, result.stop) == (expected.text, expected.stop)
            assert result.confidence == pytest.approx(expected.confidence, abs=1e-5)
            saved += expected.forwards - result.forwards
    assert saved > 8 * 20


def test_what_was_written_before_a_cancel_need_not_be_written_again(loaded):
    warm, cold = engines(loaded)
    expected = cold.infill(asked(PREFIX), cancelled=never)
    polled = []

    def after_twelve() -> bool:
        polled.append(1)
        return len(polled) > 12

    with pytest.raises(Cancelled):
        warm.infill(asked(PREFIX), cancelled=after_twelve)
    result = warm.infill(asked(PREFIX), cancelled=never)
    assert result.text == expected.text
    assert result.forwards <= expected.forwards - 8


def test_text_typed_over_an_answer_costs_no_more_and_changes_nothing(loaded):
    warm, cold = engines(loaded)
    warm.infill(asked(PREFIX), cancelled=never)
    expected = cold.infill(asked(PREFIX + "[]"), cancelled=never)
    result = warm.infill(asked(PREFIX + "[]"), cancelled=never)
    assert (result.text, result.forwards) == (expected.text, expected.forwards)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny-gemma")
    tiny.diffusion_gemma(directory, seed=4)
    config = EngineConfig(model=directory, device="cpu", sampler=SamplerConfig(max_steps=2))
    return config, tiny.load_ours(directory), Tokenizer.from_directory(directory)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("", " wide = 0;"),
        (" wi", "de = 0;"),
        (" w", "ide = 0;"),
        (" tall", " = 0;"),  # typed over
        (" wide = 0;", ""),
    ],
)
@pytest.mark.parametrize("wanted", [False, True])
def test_a_canvas_first_shows_what_is_left_of_the_last_answer(
    gemma, monkeypatch, typed, shown, wanted
):
    """What is healed at the cursor comes before it."""
    config, model, tokenizer = gemma
    engine = Engine("tiny", replace(config, canvas_warm_start=wanted), model, tokenizer)
    guessed = []

    def fill(model, cache, canvas, *, control, **how):
        guessed.append(tokenizer.decode(canvas.guess))
        ids = tuple(tokenizer.encode("= wide = 0;"))
        control.on_draft(ids, 1)
        return Filled(ids=ids, stop=StopReason.COMPLETE, forwards=1, log_probabilities=())

    monkeypatch.setattr(infill, "infill", fill)
    request = InfillRequest(prefix="area =", suffix="\nb = 2\n", hole_tokens=20)
    for prefix in ("area =", "area =" + typed):
        engine.infill(replace(request, prefix=prefix), cancelled=never)
    healed = ("area =" + typed)[-1]
    assert guessed == ["", healed + shown if wanted and shown else ""]


@pytest.mark.parametrize("wanted", [False, True])
def test_where_the_length_is_searched_for_an_earlier_answer_is_tried_first(
    gemma, monkeypatch, wanted
):
    config, model, tokenizer = gemma
    engine = Engine("tiny", replace(config, canvas_warm_start=wanted), model, tokenizer)
    tried = []

    def find(model, cache, layout, bounds, policy, *, earlier, control, **how):
        tried.append(tokenizer.decode(earlier))
        ids = tuple(tokenizer.encode("= wide = 0;"))
        control.on_draft(ids, 1)
        return [Filled(ids=ids, stop=StopReason.COMPLETE, forwards=1, log_probabilities=())]

    monkeypatch.setattr(search, "search", find)
    for typed in ("", " wi", " tall"):
        request = InfillRequest(prefix="area =" + typed, suffix="\nb = 2\n", max_tokens=20)
        engine.infill(request, cancelled=never)
    assert tried == ["", "ide = 0;" if wanted else "", ""], "typed over, the length is not known"
