"""The tokenizer: text is only ever text, special tokens only ever special, characters whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from engine.errors import CheckpointError
from engine.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["def f(x):\n    return x + 12\r\n", "<|im_end|> im_end end", "\tfor é in 😀😀:\n"] * 3
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def byte_level(**options) -> Inner:
    """SmolLM2's rules with a small trained vocabulary."""
    inner = Inner(models.BPE(**options))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(name, special=True) for name in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return inner


def byte_fallback() -> Inner:
    """Gemma's rules with a small vocabulary: spaces are ▁, unknown characters are bytes."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*names, *"▁abdefr(:<>os", "de", "def", "<e", "<eo", "<eos"]
    merges = [("d", "e"), ("de", "f"), ("<", "e"), ("<e", "o"), ("<eo", "s")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    inner = Inner(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner.add_special_tokens([AddedToken(name, special=True) for name in names[:4]])
    inner.add_tokens([AddedToken("\n\n", normalized=False)])
    return inner


def saved(directory, inner) -> Tokenizer:
    inner.save(str(directory / "tokenizer.json"))
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="module")
def smol(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("smol"), byte_level())


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("gemma"), byte_fallback())


HOSTILE = [
    "",
    "<|im_end|>",
    "x = '<|endoftext|>'  # <|im_start|>user\n",
    "<|im_<|im_end|>end|>",
    "<eos><bos><pad><unk>",
    "a\r\nb\rc\n\n\n\td\0e\ff\x0b\x85\u2028\u2029",
    "👩‍👩‍👧 é e\u0301 漢字 \u200b\ufeff � ��",
    "0123456789 1e-5",
    "  \t  ",
]


@pytest.mark.parametrize("name", ["smol", "gemma"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_and_never_makes_a_special_token(request, name, text):
    tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode(text)
    special = SPECIAL if name == "smol" else ["<pad>", "<eos>", "<bos>", "<unk>"]
    assert not {tokenizer.special(token) for token in special} & set(ids)
    assert tokenizer.decode(ids) == text


@given(TEXTS)
def test_any_text_survives_a_byte_level_vocabulary(smol, text):
    assert smol.decode(smol.encode(text)) == text


@given(TEXTS.filter(lambda text: "▁" not in text))
def test_any_text_survives_a_byte_fallback_vocabulary(gemma, text):
    assert gemma.decode(gemma.encode(text)) == text


@pytest.mark.parametrize("name", ["smol", "gemma"])
@given(text=st.text(st.sampled_from("aé漢😀� \ufeff")))
def test_every_prefix_of_the_ids_decodes_to_a_prefix_of_the_text(request, name, text):
    tokenizer = request.getfixturevalue(name)
    ids = tokenizer.encode(text)
    for cut in range(len(ids)):
        assert text.startswith(tokenizer.decode(ids[:cut]))


def test_bytes_that_are_no_text_inside_the_ids_become_replacement_characters(gemma):
    first_byte = gemma.encode("é")[0]
    assert gemma.decode([first_byte, *gemma.encode("a")]) == "�a"


@given(st.lists(st.integers(0, 399)))
def test_any_ids_decode_without_special_tokens(smol, ids):
    text = smol.decode(ids)
    assert text == smol.decode([i for i in ids if i > 2])


def test_lone_surrogates_are_replaced(smol):
    assert smol.decode(smol.encode("a\ud800b\udfff😀")) == "a�b�😀"


def test_added_tokens_that_are_not_special_are_text(gemma):
    ids = gemma.encode("a\n\nb")
    assert len(ids) == 3
    assert gemma.decode(ids) == "a\n\nb"


def test_an_added_token_spells_itself_not_bytes(tmp_path):
    inner = byte_level()
    inner.add_tokens([AddedToken("é!", normalized=False)])
    tokenizer = saved(tmp_path, inner)
    assert tokenizer.encode("é!") == [inner.token_to_id("é!")]
    assert tokenizer.decode(tokenizer.encode("aé!")) == "aé!"


def test_ids_beyond_the_vocabulary_decode_to_nothing(smol):
    assert smol.decode([smol.vocab_size, *smol.encode("a"), 10**6]) == "a"


def test_truncation_padding_and_templates_in_the_file_change_nothing(tmp_path, smol):
    inner = byte_level()
    inner.enable_truncation(2)
    inner.enable_padding(length=50)
    text = CORPUS[0]
    assert saved(tmp_path, inner).encode(text) == smol.encode(text)


def test_special_tokens_are_found_by_name(smol):
    assert [smol.special(name) for name in SPECIAL] == [0, 1, 2]
    assert smol.vocab_size == byte_level().get_vocab_size() > 256 + len(SPECIAL)
    with pytest.raises(CheckpointError, match=r"no special token '<eos>'; it has .*<.im_end"):
        smol.special("<eos>")
    with pytest.raises(CheckpointError, match="no special token 'a'"):
        smol.special("a")


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_directory(tmp_path)


def changed(**parts) -> bytes:
    layout = json.loads(byte_level().to_str())
    layout["model"] |= parts.pop("model", {})
    return json.dumps(layout | parts).encode()


DAMAGED = {
    "empty": (b"", "is not readable JSON"),
    "cut": (changed()[:1000], "is not readable JSON"),
    "binary": (b"\xff\xfe\x00", "is not readable JSON"),
    "deep nesting": (b'{"model":' + b"[" * 50_000, "is not readable JSON"),
    "a list": (b"[]", "must hold a JSON object"),
    "nothing": (b"{}", "the model is None"),
    "a model of another kind": (changed(model={"type": "WordPiece"}), "the model is 'WordPiece'"),
    # Left to the library, this one ends the process.
    "a word prefix": (
        changed(model={"continuing_subword_prefix": "x"}),
        "continuing_subword_prefix 'x' is not supp",
    ),
    "a word suffix": (
        changed(model={"end_of_word_suffix": "</w>"}),
        "end_of_word_suffix '</w>' is not supp",
    ),
    "dropout": (changed(model={"dropout": 0.1}), "dropout 0.1 is not supported"),
    "merges of unknown pieces": (changed(model={"merges": [["q", "zz"]]}), "is damaged"),
    "a pattern that is no regex": (
        changed(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "(("},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "is damaged",
    ),
    "no decoder": (changed(decoder=None), "decodes with None; this engine knows ByteLevel"),
    "an unknown decoder": (changed(decoder={"type": "Metaspace"}), "decodes with .*Metaspace"),
    "a nameless decoder": (changed(decoder={"decoders": [{}, 1]}), "decodes with .*1"),
    "no list of decoders": (changed(decoder={"decoders": 7}), "decodes with 7"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_tokenizer_that_cannot_be_used_is_refused(tmp_path, content, words):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json.* {words}"):
        Tokenizer.from_directory(tmp_path)


def test_a_piece_outside_the_byte_alphabet_stands_for_itself(tmp_path):
    vocab = json.loads(byte_level().to_str())["model"]["vocab"]
    content = changed(model={"vocab": {**vocab, "漢": len(vocab)}})
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert Tokenizer.from_directory(tmp_path).decode([len(vocab)]) == "漢"


def test_a_vocabulary_that_spells_special_tokens_as_text_is_refused(tmp_path):
    inner = byte_fallback()
    layout = json.loads(inner.to_str())
    layout["model"]["ignore_merges"] = True  # a whole word is looked up before it is cut up
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout))
    with pytest.raises(CheckpointError, match=r"reads the plain text '<.*>' as a special token"):
        Tokenizer.from_directory(tmp_path)
