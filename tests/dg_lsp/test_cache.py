"""Documents are drawn with their cursor (║)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dg_lsp.cache import LOOK_BACK, Answer, Cache, Offer, typed_since
from dg_lsp.document import Snapshot


def at(drawn, uri="a"):
    left, _, right = drawn.partition("║")
    return Snapshot(text=left + right, offset=len(left), uri=uri)


def answer(*texts, covered=0):
    return Answer(tuple(Offer(text, covered) for text in texts))


def found(given_at, texts, now, covered=0):
    """What is left of the texts, given at one place, at another: (text, covered)."""
    cache = Cache()
    cache.put(at(given_at), answer(*texts, covered=covered))
    left = cache.find(at(now))
    return left and [(offer.text, offer.covered) for offer in left.offers]


LEFT = {
    "the same place": ("x = ║\n", "x = ║\n", ["f(a)"], 0, [("f(a)", 0)]),
    "typed in part": ("x = ║\n", "x = f(║\n", ["f(a)"], 0, [("a)", 0)]),
    "typed otherwise": ("x = ║\n", "x = g║\n", ["f(a)"], 0, None),
    "typed whole": ("x = ║\n", "x = f(a)║\n", ["f(a)"], 0, None),
    "only the longer one is left": ("x = ║\n", "x = 1║\n", ["1", "1\ny = 2"], 0, [("\ny = 2", 0)]),
    "enter, and the editor indents": (
        "def f():║\n",
        "def f():\n    ║\n",
        ["\n    pass"],
        0,
        [("pass", 0)],
    ),
    "an editor closes a bracket": ("x = f║\n", "x = f(║)\n", ["(a, b)"], 0, [("a, b)", 1)]),
    "an editor closes two": ("x = f║\n", "x = f([║])\n", ["([a])"], 0, [("a])", 2)]),
    "an editor closes a quote": ("x = ║\n", 'x = "║"\n', ['"a"'], 0, [('a"', 1)]),
    "a closer is typed over": ("f(║)\n", "f(a)║\n", ["a) or b"], 1, [(" or b", 0)]),
    "closers and a colon are written anew": ("if (║):\n", "if (a║):\n", ["a) or (b):"], 2, [(") or (b):", 2)]),
    "the suffix changed": ("x = ║\ny\n", "x = ║\nz\n", ["f(a)"], 0, None),
    "the prefix changed": ("x = ║\n", "y = ║\n", ["f(a)"], 0, None),
    "code follows now": ("x = ║\n", "x = f║ + 1\n", ["f(a)"], 0, None),
    "a line end is not typed over": ("x = ║\n\ny\n", "x = ║\ny\n", ["f(a)"], 0, None),
    "before the place": ("x = ║\n", "x =║\n", ["f(a)"], 0, None),
}  # fmt: skip


@pytest.mark.parametrize(("given_at", "now", "texts", "covered", "left"), LEFT.values(), ids=LEFT)
def test_what_is_left_of_an_answer(given_at, now, texts, covered, left):
    assert found(given_at, texts, now, covered) == left


@given(
    left=st.text("ab(\n", max_size=8),
    right=st.text(")\n b", max_size=8),
    text=st.text("ab()\n", min_size=1, max_size=8),
    covered=st.integers(0, 2),
    typed=st.integers(0, 8),
    closers=st.sampled_from(["", ")", "))"]),
)
def test_accepting_what_is_left_leads_to_the_same_text(left, right, text, covered, typed, closers):
    place = Snapshot(text=left + right, offset=len(left))
    cache = Cache()
    cache.put(place, Answer((Offer(text, covered),)))
    now = Snapshot(text=left + text[:typed] + closers + right, offset=len(left + text[:typed]))
    for offer in (cache.find(now) or Answer()).offers:
        accepted = now.prefix + offer.text + now.suffix[offer.covered :]
        assert accepted == left + text + right[covered:]


def test_backspace_into_a_known_place_shows_it_again():
    cache = Cache()
    cache.put(at("x = ║\n"), answer("f(a)"))
    cache.put(at("x = g║\n"), answer("(b)"))
    assert cache.find(at("x = g║\n")) == answer("(b)")
    assert cache.find(at("x = ║\n")) == answer("f(a)")


def test_what_is_shown_stands_still_whatever_else_becomes_known():
    cache = Cache()
    cache.put(at("║\n"), answer("ab = 1\ncd = 2"))
    assert cache.find(at("║\n")) == answer("ab = 1\ncd = 2")
    cache.put(at("ab = 1║\n"), answer("0"))
    assert cache.find(at("ab = 1║\n")) == answer("\ncd = 2")


def test_that_there_is_nothing_is_known_too_but_only_there():
    cache = Cache()
    cache.put(at("x║\n"), Answer())
    assert cache.find(at("x║\n")) == Answer()
    assert cache.find(at("xy║\n")) is None


def test_what_is_not_wanted_stays_so_while_it_is_typed():
    cache = Cache()
    cache.put(at("x║\n"), Answer((Offer("abc\nd", wanted=False), Offer("abc"))))
    found = cache.find(at("xa║\n"))
    assert found == Answer((Offer("bc\nd", wanted=False), Offer("bc")))
    assert found.unasked == Answer((Offer("bc"),))


def test_that_nothing_is_wanted_is_known_only_where_it_was_asked():
    cache = Cache()
    cache.put(at("x = ║\n"), Answer((Offer("f(a)", wanted=False),)))
    assert cache.find(at("x = ║\n"), unasked=True) == Answer()
    assert cache.find(at("x = f║\n"), unasked=True) is None
    assert cache.find(at("x = f║\n")) == Answer((Offer("(a)", wanted=False),))


def test_answers_serve_as_far_as_one_looks_back():
    cache = Cache()
    text = "a" * (LOOK_BACK + 10)
    cache.put(at("║\n"), answer(text))
    assert at(text[:LOOK_BACK] + "║\n") in cache
    assert at(text[: LOOK_BACK + 1] + "║\n") not in cache


def test_what_is_shown_serves_however_long_it_is():
    cache = Cache()
    text = "a" * (3 * LOOK_BACK)
    cache.put(at("║\n"), answer(text))
    for typed in range(0, len(text), LOOK_BACK):
        assert cache.find(at(text[:typed] + "║\n")) == answer(text[typed:])
    assert cache.find(at(text[:-1] + "║\n")) == answer("a")


def test_asking_whether_something_is_known_does_not_show_it():
    cache = Cache()
    cache.put(at("║\n"), answer("ab1"))
    cache.put(at("a║\n"), answer("b2"))
    assert cache.find(at("a║\n")) == answer("b2")
    assert at("║\n") in cache and at("c║\n") not in cache
    assert cache.find(at("a║\n")) == answer("b2")


def test_the_least_recently_used_is_forgotten_first():
    cache = Cache(entries=2)
    for name in ("a", "b"):
        cache.put(at(f"{name}║"), answer("text"))
    cache.find(at("a║"))
    cache.put(at("c║"), answer("text"))
    assert [at(f"{name}║") in cache for name in "abc"] == [True, False, True]
    assert len(cache) == 2


def test_a_document_is_forgotten_alone():
    cache = Cache()
    for uri in ("a", "b"):
        cache.put(at("x║", uri), answer("text"))
        cache.find(at("x║", uri))
    cache.forget("a")
    assert (at("x║", "a") in cache, at("x║", "b") in cache) == (False, True)
    cache.clear()
    assert at("x║", "b") not in cache


@pytest.mark.parametrize(
    ("old", "new", "typed"),
    [
        ("a║b\n", "a║b\n", ""),
        ("a║\n", "axy║\n", "xy"),
        ("f║\n", "f(║)\n", "("),
        ("f(║)\n", "f(a)║\n", "a)"),
        ("ab║\n", "a║\n", None),
        ("a║\n", "b║\n", None),
        ("a║\nc", "ab║\nd", None),
    ],
)
def test_what_was_typed_between_two_places(old, new, typed):
    assert typed_since(at(old), at(new)) == typed
    assert typed_since(at(old), at(new, "another document")) is None
