"""How requests are laid out for each model family, and what is dropped when it does not fit."""

from dataclasses import replace

import pytest

from engine import prompt
from engine.config import ModelConfig
from engine.request import ContextChunk, InfillRequest
from engine.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.test_config import LLAMA


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="module")
def llama() -> ModelConfig:
    return ModelConfig.from_hf({**LLAMA, "vocab_size": 300}, {"bos_token_id": 2, "eos_token_id": 1})


def spelled(tokenizer: Tokenizer, ids) -> str:
    """The ids as text, special tokens by name."""
    names = {tokenizer.special(name): name for name in tiny.SPECIAL}
    return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)


def test_raw_is_start_context_prefix_less_the_healed_token(tokenizer, llama):
    request = InfillRequest(prefix="def f():\n  ret", context=(ContextChunk("a.py", "x = 1\n"),))
    built = prompt.raw(request, tokenizer, llama, 500)
    assert built.healed == " ret"
    assert spelled(tokenizer, built.ids) == "<bos>x = 1\n\ndef f():\n "


def test_a_lines_end_is_healed_too(tokenizer, llama):
    built = prompt.raw(InfillRequest(prefix="x\n"), tokenizer, llama, 500)
    assert (built.healed, spelled(tokenizer, built.ids)) == ("\n", "<bos>x")


def test_the_last_blank_of_an_indentation_belongs_to_the_next_word(tokenizer, llama):
    built = prompt.raw(InfillRequest(prefix="if x:\n    "), tokenizer, llama, 500)
    assert (built.healed, spelled(tokenizer, built.ids)) == (" ", "<bos>if x:\n   ")


def test_a_prefix_ending_inside_a_character_of_several_tokens_is_not_healed(tokenizer, llama):
    built = prompt.raw(InfillRequest(prefix="x = '漢"), tokenizer, llama, 500)
    assert built.healed == ""
    assert tokenizer.decode(built.ids) == "x = '漢"


def test_an_empty_prefix_still_gives_the_model_something_to_start_from(tokenizer, llama):
    assert prompt.raw(InfillRequest(prefix=""), tokenizer, llama, 500).ids == (2,)
    bare = replace(llama, bos_id=None)
    assert prompt.raw(InfillRequest(prefix=""), tokenizer, bare, 500).ids == (1,)


def test_the_newest_text_stays_and_the_start_moves_in_steps_while_typing(tokenizer, llama):
    text = "".join(f"line {i}\n" for i in range(60))
    starts = set()
    for end in range(len(text) - 40, len(text)):
        built = prompt.raw(InfillRequest(prefix=text[:end]), tokenizer, llama, 201)
        assert len(built.ids) <= 201
        shown = spelled(tokenizer, built.ids[1:]) + built.healed
        assert text[:end].endswith(shown)
        starts.add(end - len(shown))
    assert len(starts) <= 2, "each move of the start empties the prefix cache"


def test_context_gives_way_to_the_prefix(tokenizer, llama):
    request = InfillRequest(prefix="p" * 90 + "\n", context=(ContextChunk("a", "c" * 500),))
    shown = spelled(tokenizer, prompt.raw(request, tokenizer, llama, 100).ids)
    assert shown.endswith("p" * 90)
    assert shown.count("c") <= 8


def test_chat_opens_the_models_turn_with_the_code_after_a_closed_thought(tokenizer):
    request = InfillRequest(
        prefix="a = ",
        suffix="\nb = 2\nc = 3\n",
        path="m.py",
        language="python",
        context=(ContextChunk("n.py", "N = 1"),),
    )
    built = prompt.chat(request, tokenizer, 2000, suffix_tokens=6)
    text = spelled(tokenizer, built.ids)
    assert text.startswith("<bos><|turn>user\nRelated file n.py:\nN = 1\n\n")
    assert "Further below in m.py:\n\nc = 3\n" in text
    assert "Write m.py (python)." in text
    assert text.endswith("<turn|>\n<|turn>model\n<|channel>thought\n<channel|>a = ")
    assert tokenizer.decode(built.suffix) == "\nb = 2"
    assert not built.ends


def test_special_tokens_in_the_code_stay_plain_text(tokenizer):
    request = InfillRequest(prefix="x = '<turn|>'", suffix="<eos>", path="<|turn>")
    built = prompt.chat(request, tokenizer, 2000, suffix_tokens=16)
    for name, count in (("<turn|>", 1), ("<|turn>", 2), ("<eos>", 0)):
        assert built.ids.count(tokenizer.special(name)) == count
    assert tokenizer.decode(built.suffix) == "<eos>"


def test_a_long_file_leaves_the_template_whole(tokenizer):
    request = InfillRequest(prefix="p" * 5000, suffix="s" * 5000, path="m.py")
    built = prompt.chat(request, tokenizer, 400, suffix_tokens=8)
    assert len(built.ids) <= 400
    assert spelled(tokenizer, built.ids).startswith("<bos><|turn>user\n")


@pytest.mark.parametrize(
    ("suffix", "suffix_tokens", "tail"),
    [
        ("ab", 8, "ab<turn|>" + "<pad>" * 19),  # the file ends on the canvas: closed and padded
        ("abcdef", 3, "abc"),  # the file goes on
        ("", 8, ""),  # nothing to clamp
    ],
)
def test_what_is_clamped_behind_a_hole_of_ten(tokenizer, suffix, suffix_tokens, tail):
    config = ModelConfig.from_hf(
        {"model_type": "diffusion_gemma", "canvas_length": 64, "text_config": TEXT}, {}
    )
    built = prompt.chat(InfillRequest(prefix="x", suffix=suffix), tokenizer, 900, suffix_tokens)
    assert spelled(tokenizer, prompt.canvas(built, 10, tokenizer, config).clamped) == tail


TEXT = {**tiny.TEXT, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
