"""What both processes say to each other: the answer on the wire, and which of its texts is taken."""

import json

import pytest

from engine.request import Candidate, Evidence, InfillResult, Mode, RequestError, StopReason


def answer(confidence: float, *others: tuple[str, float]) -> InfillResult:
    return InfillResult(
        text="own",
        stop=StopReason.LINE,
        mode=Mode.FIM,
        model="scripted",
        confidence=confidence,
        tokens=3,
        forwards=4,
        prompt_tokens=9,
        cached_tokens=8,
        evidence=Evidence(tokens=3, surprise=1.5, worst=-1.0, end=None, junction=-2.0),
        beginnings=(Candidate(text="o", confidence=0.9),),
        alternatives=tuple(
            Candidate(text=text, confidence=p, evidence=Evidence(tokens=len(text)))
            for text, p in others
        ),
        timings_ms={"total": 1.5},
    )


def test_an_answer_with_all_its_parts_comes_over_the_wire_as_it_was():
    sent = answer(0.5, ("one", 0.4), ("two", 0.1))
    assert InfillResult.from_json(json.loads(json.dumps(sent.to_json()))) == sent


def test_what_is_wrong_within_a_part_is_named():
    data = answer(0.5, ("one", 0.4)).to_json()
    data["alternatives"][0]["confidence"] = "high"
    with pytest.raises(RequestError, match="confidence must be float, got str: 'high'"):
        InfillResult.from_json(data)


def chosen(result: InfillResult, *valid: str) -> str:
    return result.preferring(lambda text: text in valid).text


def test_a_valid_answer_stays():
    assert chosen(answer(0.1, ("one", 0.9)), "own", "one") == "own"


def test_the_first_valid_alternative_that_is_nearly_as_likely_takes_its_place():
    result = answer(0.5, ("one", 0.3), ("two", 0.46), ("three", 0.9))
    assert chosen(result, "one", "two", "three") == "two"
    assert chosen(result, "three") == "three"


def test_where_only_a_much_less_likely_one_is_valid_the_answer_stays():
    assert chosen(answer(0.5, ("one", 0.3)), "one") == "own"
    assert chosen(answer(0.5)) == "own"


def test_the_answer_that_gave_way_is_an_alternative_and_lends_nothing():
    result = answer(0.5, ("one", 0.3), ("two", 0.5)).preferring(lambda text: text == "two")
    assert [each.text for each in result.alternatives] == ["own", "one"]
    assert result.alternatives[0].confidence == 0.5
    assert (result.tokens, result.evidence.tokens, result.beginnings) == (3, 3, ())
    assert result.forwards == 4
