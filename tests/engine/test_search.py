"""The length of a hole is found, whatever the denoiser says about wrong ones."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import infill, lengths, search
from engine.config import InfillConfig, SamplerConfig
from engine.errors import Cancelled
from engine.infill import Control, Filled
from engine.request import StopReason
from tests.engine.scripted_denoiser import Ids, Lies, ScriptedDenoiser, SealedDenoiser

INFILL = InfillConfig()
LIMIT = 64
END, PAD, EMPTY = 1, 0, 98


def words(count: int, seed: int = 0) -> list[int]:
    """Token ids of a text in which nothing repeats within reach."""
    return random.Random(seed).sample(range(5, 97), count)


def scripted(
    middle: int, suffix: int = 20, kind: type[ScriptedDenoiser] = ScriptedDenoiser, **lies
) -> ScriptedDenoiser:
    text = words(middle + suffix)
    return kind(text[:middle], text[middle:], Lies(**lies))


BOTH = pytest.mark.parametrize("kind", [ScriptedDenoiser, SealedDenoiser])


def searched(
    model: ScriptedDenoiser,
    config: InfillConfig = INFILL,
    control: Control | None = None,
    earlier: tuple[int, ...] = (),
) -> list[Filled]:
    return search.search(
        model,
        Ids(),
        model.layout,
        range(LIMIT + 1),
        config,
        SamplerConfig(),
        seed=1,
        control=control or Control(),
        earlier=earlier,
    )


@pytest.mark.parametrize("middle", range(LIMIT + 1))
def test_the_right_length_is_found(middle):
    model = scripted(middle)
    best = searched(model)[0]
    assert best.ids == tuple(model.middle)
    assert best.stop is StopReason.COMPLETE


@pytest.mark.parametrize("middle", [*range(6), 7, 13, 21, 33, 49, 57, 63, 64])
def test_the_right_length_is_found_where_the_suffix_is_sealed(middle):
    model = scripted(middle, kind=SealedDenoiser)
    best = searched(model)[0]
    assert best.ids == tuple(model.middle)
    assert best.stop is StopReason.COMPLETE
    assert len(model.encoded) == 1, "one encoding of the suffix serves all lengths"


@pytest.mark.parametrize("middle", [0, 1, 2, 8, 12, 24, 64])
def test_canvases_with_a_sealed_suffix_that_are_surest_of_wrong_lengths_are_read(middle):
    wrong = frozenset({1, 2, 4, 12, 16, 24, 32, 48} - {middle})
    model = scripted(middle, kind=SealedDenoiser, sure_of=wrong, jumbled=wrong)
    assert searched(model)[0].ids == tuple(model.middle)


@pytest.mark.parametrize("middle", [2, 8, 21])
def test_without_a_reading_a_sealed_suffix_says_nothing(middle):
    wrong = frozenset({1, 4, 12, 16, 24, 48} - {middle})
    model = scripted(middle, kind=SealedDenoiser, sure_of=wrong, jumbled=wrong)
    answers = searched(model, replace(INFILL, read=0))
    assert answers[0].ids != tuple(model.middle)
    assert {one.junction for one in answers} == {None}
    assert not model.read


def test_only_the_suffixs_first_tokens_are_read_behind_each_answer():
    model = scripted(8, kind=SealedDenoiser)
    searched(model, replace(INFILL, read=3, lengths=(4, 8), neighbours=(), repairs=0))
    texts = [*model.middle[:4], *model.suffix[:2]], [*model.middle, *model.suffix[:2]]
    # Whose last tokens tell the third of the suffix; both were probed, and both were decoded.
    assert [model.read.count(text) for text in texts] == [2, 2]
    assert max(map(len, model.read)) == 10


class LeavesEmpty(SealedDenoiser):
    """Ends the text itself, and finds that nothing follows it."""

    def __init__(self, *known) -> None:
        super().__init__(*known)
        assert self.config.canvas
        self.config = replace(self.config, canvas=replace(self.config.canvas, empty_id=EMPTY))

    def _text(self, hole):
        return [*self.middle, *[EMPTY] * hole][:hole]

    def tree(self, ids, *place, **how):
        return torch.zeros(len(ids), 100)


@pytest.mark.parametrize(("middle", "longer"), [(3, False), (30, True)])
def test_a_longer_hole_is_tried_only_for_an_answer_that_fills_its_own(middle, longer):
    model = scripted(middle, kind=LeavesEmpty)
    searched(model, replace(INFILL, lengths=(4, 16), neighbours=(), kept=1))
    assert (max(map(len, model.seen)) > 16) == longer


@pytest.mark.parametrize("suffix", [1, 2, 5])
@pytest.mark.parametrize("middle", [0, 1, 3, 7, 14, 20, 30, 41])
def test_at_the_end_of_a_file_a_few_tokens_are_enough(middle, suffix):
    """The end token and padding follow them on the canvas."""
    model = scripted(middle, suffix)
    model.suffix = [*model.suffix, END, *[PAD] * 20]
    assert searched(model)[0].ids == tuple(model.middle)


@pytest.mark.parametrize("middle", [1, 2, 5, 11, 21])
def test_a_suffix_that_repeats_itself_is_no_repetition_of_the_hole(middle):
    model = scripted(middle, 0)
    model.suffix = [50, 51, 52] * 6 if 50 not in model.middle else [4, 3, 2] * 6
    assert searched(model)[0].ids == tuple(model.middle)


@pytest.mark.parametrize("middle", [2, 8, 12, 32])
def test_certainty_at_wrong_lengths_is_outweighed_by_the_junction(middle):
    wrong = frozenset({1, 4, 12, 16, 24, 48} - {middle})
    model = scripted(middle, sure_of=wrong, jumbled=wrong)
    assert searched(model)[0].ids == tuple(model.middle)
    blind = replace(INFILL, judged=0)
    assert searched(model, blind)[0].ids != tuple(model.middle), "the junction decided nothing"


def test_a_first_forward_that_tells_nothing_is_not_relied_on():
    """All lengths look alike before self-conditioning, and a wrong one is then no surer."""
    model = scripted(8, blind_first=True)
    one = replace(INFILL, kept=1, neighbours=(), repairs=0, judged=0, lengths=(2, 4, 8, 16))
    assert len(searched(model, one)[0].ids) == 8
    assert len(searched(model, replace(one, probe_steps=1))[0].ids) != 8


@pytest.mark.parametrize("corrected", [False, True])
def test_noise_survives_unless_it_is_judged_without_its_own_evidence(corrected):
    model = scripted(8, believes_noise=3.0)
    fixed = replace(INFILL, lengths=(8,), neighbours=(), repairs=0, leave_one_out=corrected)
    best = searched(model, fixed)[0]
    assert (best.ids == tuple(model.middle)) == corrected


def test_all_answers_are_given_with_what_is_known_of_them_the_best_first():
    """A verification may order them anew."""
    answers = searched(scripted(12, sure_of=frozenset({8, 32})))
    assert len(answers) > 2
    assert len({one.ids for one in answers}) == len(answers)
    scores = [search.score(one, INFILL) for one in answers]
    assert scores == sorted(scores, reverse=True)
    assert all(one.junction is not None and one.log_probability < 0 for one in answers)


def test_canvases_that_trail_are_given_up():
    wrong = frozenset({7, 9, 10, 12, 6})
    forwards = {}
    for margin in (None, 3.0):
        model = scripted(8, jumbled=wrong)
        config = replace(INFILL, drop_behind=margin, repairs=0)
        assert searched(model, config)[0].ids == tuple(model.middle)
        forwards[margin] = sum(model.batches)
    assert forwards[3.0] < forwards[None]


@BOTH
def test_all_forwards_are_counted_and_drafts_numbered_on(kind):
    model, steps = scripted(20, kind=kind), []
    control = Control(on_draft=lambda ids, step: steps.append(step))
    best = searched(model, control=control)[0]
    assert best.forwards == len(model.batches)
    reads = kind is SealedDenoiser  # which needs a forward after each batch, and gives no draft
    assert steps[0] == INFILL.probe_steps + reads + 1
    assert steps == sorted(set(steps)) and steps[-1] == best.forwards - reads
    if not reads:
        assert steps == list(range(INFILL.probe_steps + 1, best.forwards + 1))


@pytest.mark.parametrize(
    ("probe", "empty", "wanted"),
    [
        (None, None, True),
        (None, 4, False),
        (True, 4, True),
        (False, None, False),
    ],
)
def test_models_that_leave_slots_empty_need_no_search(probe, empty, wanted):
    model = scripted(3)
    assert model.config.canvas
    model.config = replace(model.config, canvas=replace(model.config.canvas, empty_id=empty))
    assert search.is_wanted(model.config, replace(INFILL, probe=probe)) == wanted


TEXTS = st.lists(st.integers(5, 9), max_size=24)
LYING = st.builds(
    Lies,
    sure=st.floats(2, 12),
    unsure=st.floats(2, 12),
    slope=st.floats(0, 0.2),
    sure_of=st.frozensets(st.integers(0, 32), max_size=4),
    jumbled=st.frozensets(st.integers(0, 32), max_size=4),
    believes_noise=st.floats(0, 3),
    blind_first=st.booleans(),
)
QUICK = replace(INFILL, max_steps=4, repairs=2)


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS.filter(len), LYING, st.sampled_from([ScriptedDenoiser, SealedDenoiser]))
def test_what_is_clamped_stays_and_is_never_repeated(middle, suffix, lies, kind):
    """Texts of few words, full of repetitions, and a model that lies in all ways."""
    model = kind(middle, suffix, lies)
    for answer in searched(model, QUICK):
        shared = lengths.overlap(answer.ids, suffix)
        assert shared < INFILL.overlap
        assert len(answer.log_probabilities) == len(answer.ids)
    assert model.seen
    for shown in model.seen if kind is ScriptedDenoiser else ():
        assert shown[-len(suffix) :] == suffix


@pytest.fixture
def forwards_as_time(monkeypatch):
    """Moments are numbers of forwards that one model has made."""

    def watch(model: ScriptedDenoiser) -> ScriptedDenoiser:
        clock = SimpleNamespace(monotonic=lambda: len(model.batches))
        monkeypatch.setattr(infill, "time", clock)
        return model

    return watch


@BOTH
def test_at_any_deadline_the_best_so_far_is_given_and_marked(forwards_as_time, kind):
    whole = forwards_as_time(scripted(13, kind=kind))
    last = searched(whole)[0].forwards
    for moment in range(1, last):
        model = forwards_as_time(scripted(13, kind=kind))
        answers = searched(model, control=Control(deadline=moment))
        best = answers[0]
        assert best.stop is StopReason.DEADLINE
        assert len(model.batches) == best.forwards == moment
        for one in answers:
            assert len(one.ids) <= LIMIT
            assert len(one.log_probabilities) == len(one.ids)
            assert lengths.overlap(one.ids, model.suffix) < INFILL.overlap
    model = forwards_as_time(scripted(13, kind=kind))
    assert searched(model, control=Control(deadline=last + 1))[0].stop is StopReason.COMPLETE


def test_a_deadline_that_has_passed_still_gives_one_forwards_answer(forwards_as_time):
    model = forwards_as_time(scripted(13))
    best = searched(model, control=Control(deadline=0))[0]
    assert (best.stop, best.forwards) == (StopReason.DEADLINE, 1)


def test_a_canvas_that_was_only_begun_does_not_replace_a_better_one_of_the_probe(forwards_as_time):
    model = forwards_as_time(scripted(8, blind_first=True, sure=12.0))
    blind = replace(INFILL, judged=0, lengths=(2, 4, 8, 16))
    after = blind.probe_steps + 1
    assert searched(model, blind, Control(deadline=after))[0].ids == tuple(model.middle)
    assert len(model.batches) == after


def test_what_no_reading_has_judged_does_not_come_before_what_one_has(forwards_as_time):
    """The right length was read after the probe; the deadline passes within the next step."""
    wrong = frozenset({2, 4, 16})
    lies = {"sure_of": wrong, "jumbled": wrong}
    model = forwards_as_time(scripted(8, kind=SealedDenoiser, **lies))
    few = replace(INFILL, lengths=(2, 4, 8, 16))
    after = few.probe_steps + 2
    assert searched(model, few, Control(deadline=after))[0].ids == tuple(model.middle)
    assert len(model.batches) == after


@BOTH
def test_cancelled_before_any_forward_nothing_more_is_done(kind):
    last = searched(scripted(13, kind=kind))[0].forwards
    for moment in range(last):
        model = scripted(13, kind=kind)
        control = Control(cancelled=lambda made=model.batches, at=moment: len(made) >= at)
        with pytest.raises(Cancelled):
            searched(model, control=control)
        assert len(model.batches) == moment


def test_an_earlier_answer_that_still_stands_needs_no_search():
    model = scripted(13)
    best = searched(model, earlier=tuple(model.middle))[0]
    assert best.ids == tuple(model.middle)
    assert best.stop is StopReason.COMPLETE
    assert best.forwards == len(model.batches) <= INFILL.again_steps
    assert best.forwards < searched(scripted(13))[0].forwards


@pytest.mark.parametrize("kept", [9, 12, 20])
def test_an_earlier_answer_that_no_longer_stands_is_searched_anew(kept):
    model = scripted(13)
    earlier = tuple([*model.middle, *words(90)][:kept])
    best = searched(model, earlier=earlier)[0]
    assert best.ids == tuple(model.middle)
    assert best.forwards == len(model.batches)


def test_an_earlier_answer_is_there_at_a_deadline(forwards_as_time):
    model = forwards_as_time(scripted(13))
    earlier = tuple(model.middle)
    best = searched(model, earlier=earlier, control=Control(deadline=1))[0]
    assert (best.ids, best.stop, best.forwards) == (earlier, StopReason.DEADLINE, 1)
