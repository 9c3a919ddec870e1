"""How requests are laid out for each model family, and what is dropped when it does not fit."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from engine import hf_config, prompt
from engine.config import CanvasConfig, ModelConfig
from engine.errors import ConfigError
from engine.request import ContextChunk, InfillRequest
from engine.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.test_hf_config import LLAMA

CLOSED_THOUGHT = "<|channel>thought\n<channel|>"
# What the released template does with one message of the user; CLOSED is there in some releases.
CHAT_TEMPLATE = r"""
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|turn>' + message['role'] + '\n' + message['content'] | trim + '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\nCLOSED' -}}
{%- endif -%}
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="module")
def llama() -> ModelConfig:
    return hf_config.model_config(
        {**LLAMA, "vocab_size": 300}, {"bos_token_id": 2, "eos_token_id": 1}
    )


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


@pytest.mark.parametrize("blank", ["\n    ", "\n\n    ", "\n\n\n"])
def test_what_a_sealed_suffix_sees_stays_while_a_line_is_typed(tokenizer, llama, blank):
    """Whatever of the line's first word is healed: the suffix is encoded once a line."""
    sealed = CanvasConfig(length=64, self_conditioning=False, sealed_suffix=True)
    config = replace(llama, canvas=sealed)
    above, line = f"def f(a):{blank}", "return a + return_value"

    def seen(typed: str) -> str:
        request = InfillRequest(prefix=above + typed, suffix="\n")
        built = prompt.plain(request, tokenizer, config, 500, 8)
        assert built.above is not None
        return spelled(tokenizer, built.ids[: built.above])

    assert {seen(line[:end]) for end in range(len(line) + 1)} == {"<bos>def f(a):"}
    assert seen(line + "\n    x") != seen(line)


def test_context_gives_way_to_the_prefix(tokenizer, llama):
    request = InfillRequest(prefix="p" * 90 + "\n", context=(ContextChunk("a", "c" * 500),))
    shown = spelled(tokenizer, prompt.raw(request, tokenizer, llama, 100).ids)
    assert shown.endswith("p" * 90)
    assert shown.count("c") <= 8


ASKED = InfillRequest(
    prefix="a = ",
    suffix="\nb = 2\nc = 3\n",
    path="m.py",
    language="python",
    context=(ContextChunk("n.py", "N = 1"),),
)


def test_chat_opens_the_models_turn_with_the_code_after_a_closed_thought(tokenizer):
    built = prompt.chat(ASKED, tokenizer, 2000, suffix_tokens=6)
    text = spelled(tokenizer, built.ids)
    assert text.startswith("<bos><|turn>user\nRelated file n.py:\nN = 1\n\n")
    assert "Further below in m.py:\n\nc = 3\n" in text
    assert "Write m.py (python)." in text
    assert text.endswith("<turn|>\n<|turn>model\n<|channel>thought\n<channel|>a =")
    assert built.healed == " ", "typing goes on in the word that this blank begins"
    assert tokenizer.decode(built.suffix) == "\nb = 2"
    assert built.end is None, "the file goes on"


@pytest.mark.parametrize(("thought", "closed"), [(True, CLOSED_THOUGHT), (False, "")])
def test_the_prompt_is_that_of_the_models_own_chat_template_to_the_last_token(
    tokenizer, tmp_path, thought, closed
):
    """The template rendered by transformers, and cut into tokens by it, special ones included."""
    template = CHAT_TEMPLATE.replace("CLOSED", closed.replace("\n", r"\n"))
    tiny.write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    assert prompt.closes_thought(tmp_path) == thought
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), chat_template=template, bos_token="<bos>"
    )
    for ours, answer in (
        (prompt.chat(ASKED, tokenizer, 2000, 6, thought=thought), "a ="),
        (prompt.hole(ASKED, tokenizer, 2000, thought=thought), ""),
    ):
        text = spelled(tokenizer, ours.ids)
        said = text.partition("user\n")[2].partition("<turn|>")[0]
        rendered = theirs.apply_chat_template(
            [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True
        )
        assert text == rendered + answer
        assert list(ours.ids) == theirs.encode(rendered + answer, add_special_tokens=False)


@pytest.mark.parametrize(
    ("healed", "joined"), [(" ", True), ("ret", True), ("_", True), ("\n", False), ("(", False)]
)
def test_what_is_healed_takes_no_slot_where_the_next_token_begins_with_it(healed, joined):
    assert prompt.joins(healed) == joined
    assert not prompt.joins("")


def test_a_model_without_a_template_file_gets_the_closed_thought(tmp_path):
    assert prompt.closes_thought(tmp_path)


def test_the_hole_asked_for_shows_both_sides_and_clamps_nothing(tokenizer):
    built = prompt.hole(ASKED, tokenizer, 2000)
    text = spelled(tokenizer, built.ids)
    assert "N = 1" in text
    assert "missing from m.py (python)" in text
    assert 0 < text.index("\nb = 2\nc = 3\n") < text.index("before it:\na = \n\n"), "typed last"
    assert text.endswith("<|turn>model\n" + CLOSED_THOUGHT)
    assert (built.suffix, built.lead, built.healed) == ((), (), "")
    long = replace(ASKED, prefix="p" * 5000 + "END", suffix="START" + "s" * 5000)
    cut = prompt.hole(long, tokenizer, 2000)
    assert len(cut.ids) <= 2000
    assert all(kept in spelled(tokenizer, cut.ids) for kept in ("pEND\n\n", "piece:\nSTARTs"))


def test_each_family_has_its_template_and_only_a_model_that_chats_can_be_chatted_with(llama):
    gemma = hf_config.model_config({"model_type": "diffusion_gemma", "text_config": TEXT}, {})
    assert prompt.choose_template("auto", gemma) == "chat"
    assert prompt.choose_template("auto", llama) == "raw"
    for template in ("raw", "hole", "chat"):
        assert prompt.choose_template(template, gemma) == template
    with pytest.raises(ConfigError, match="template 'hole' is for models that chat; use 'raw'"):
        prompt.choose_template("hole", llama)


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
    config = hf_config.model_config(
        {"model_type": "diffusion_gemma", "canvas_length": 64, "text_config": TEXT}, {}
    )
    built = prompt.chat(InfillRequest(prefix="x", suffix=suffix), tokenizer, 900, suffix_tokens)
    assert spelled(tokenizer, prompt.canvas(built, 10, config).clamped) == tail


TEXT = {**tiny.TEXT, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
