"""Which tokens may follow when the text has to begin with given characters."""

import pytest

from engine.healing import Healer
from engine.tokenizer import Tokenizer
from tests.engine import tiny


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return Tokenizer.from_directory(directory)


@pytest.mark.parametrize(
    ("required", "texts"),
    [
        ("re", {"r", "re", "ret"}),
        ("ret", {"r", "re", "ret"}),
        (" re", {" ", " r", " re", " ret"}),
        ("q", {"q"}),
        (" ", {" ", "  ", " r", " re", " ret"}),
    ],
)
def test_tokens_that_begin_with_the_text_or_begin_it_are_allowed(tokenizer, required, texts):
    allowed = Healer(tokenizer, tokenizer.vocab_size).allowed(required)
    assert allowed is not None
    assert {tokenizer.decode([i]) for i in allowed.tolist()} == texts


def test_nothing_required_bounds_nothing(tokenizer):
    assert Healer(tokenizer, tokenizer.vocab_size).allowed("") is None


def test_a_character_no_token_begins_with_bounds_nothing(tokenizer):
    assert Healer(tokenizer, tokenizer.vocab_size).allowed("漢") is None


def test_ids_beyond_the_models_vocabulary_are_never_allowed(tokenizer):
    allowed = Healer(tokenizer, 100).allowed(" ")
    assert allowed is None or max(allowed.tolist()) < 100
