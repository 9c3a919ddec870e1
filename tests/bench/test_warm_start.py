"""What is counted while one types: answers known, finished, broken off; and what agrees."""

from bench.typist import Key, Recording
from bench.warm_start import compared, replay
from engine.errors import Cancelled
from engine.request import InfillResult, Mode, StopReason

SOURCE = "first = 1\nsecond = first\n"


class Slow:
    """Knows the source; a token a forward, each a letter."""

    def __init__(self, answer: str = "") -> None:
        self.asked: list[str] = []
        self._answer = answer

    def infill(self, request, *, cancelled):
        self.asked.append(request.prefix)
        text = self._answer or SOURCE[len(request.prefix) :]
        for _ in text:
            if cancelled():
                raise Cancelled("typed on")
        return InfillResult(
            text=text,
            stop=StopReason.COMPLETE,
            mode=Mode.FIM,
            model="slow",
            confidence=1.0,
            tokens=len(text),
            forwards=len(text),
            prompt_tokens=1,
            cached_tokens=0,
            timings_ms={"decode": 2.0},
        )


def typed(gap_ms: int) -> Recording:
    """The second line, letter by letter."""
    start = SOURCE.index("second")
    keys = (Key(gap_ms, at, 0, SOURCE[at], at + 1) for at in range(start, len(SOURCE) - 1))
    return Recording("x", "python", SOURCE[:start], tuple(keys))


def test_an_answer_that_holds_is_not_asked_for_again():
    engine = Slow()
    figures = replay(typed(gap_ms=1000), engine, 10, forward_ms=10, mode=Mode.FIM)
    assert engine.asked == ["first = 1\ns"]
    assert (figures.known, figures.cancelled, list(figures.answers)) == (9, 0, [0])
    assert (figures.forwards, figures.decode_ms) == (len("econd = first\n"), 2.0)


def test_a_request_ends_with_the_next_key():
    figures = replay(typed(gap_ms=50), Slow(), 8, forward_ms=10, mode=Mode.FIM)
    assert (figures.known, figures.cancelled, figures.answers) == (0, 8, {})


def test_answers_to_the_same_keys_are_compared():
    one, other = (
        replay(typed(gap_ms=1000), Slow(answer), 4, forward_ms=1, mode=Mode.FIM)
        for answer in ("", "?")
    )
    summary = compared([one, one], [other, one])
    assert (summary["answered_by_both"], summary["alike"]) == (2, 1)
    assert summary["warm"]["finished"] == 2
    assert summary["cold"] == {
        "known": 3,
        "finished": 5,
        "cancelled": 0,
        "forwards": round((4 + len("econd = first\n")) / 5, 2),
        "decode_ms": 2.0,
    }
