"""Checkpoints: every stored tensor claimed once, streamed, and damaged or hostile files refused."""

import json
import struct
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import checkpoint, hf_config, packed, shards
from engine.checkpoint import load_tensors, model_name
from engine.errors import CheckpointError
from engine.model import Transformer
from tests.engine import tiny

CPU = torch.device("cpu")
PAIR = {"a": (2, 3), "b": (4,)}
INDEX = "model.safetensors.index.json"


def load(directory, shapes, family="llama", dtype=torch.float32, **options):
    return load_tensors(directory, family, shapes, dtype=dtype, device=CPU, **options)


def write(directory, tensors, name="model.safetensors"):
    save_file({f"model.{key}": value for key, value in tensors.items()}, directory / name)


def write_pair(directory, **changes):
    write(directory, {"a": torch.randn(2, 3), "b": torch.randn(4), **changes})


def write_shards(directory):
    """`a` and `b` in a shard each, with a true index; returns the index's map for tests to bend."""
    write(directory, {"a": torch.ones(2, 3)}, "one.safetensors")
    write(directory, {"b": torch.ones(4)}, "two.safetensors")
    weight_map = {"model.a": "one.safetensors", "model.b": "two.safetensors"}
    write_index(directory, weight_map)
    return weight_map


def write_index(directory, weight_map):
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def meta_shapes(config):
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.fixture(scope="module", params=["one file", "shards"])
def gemma(request, tmp_path_factory):
    """A tiny DiffusionGemma as transformers writes it, and all its stored tensors."""
    directory = tmp_path_factory.mktemp("gemma")
    reference = tiny.diffusion_gemma(directory, seed=1).reference
    if request.param == "shards":
        (directory / "model.safetensors").unlink()
        reference.save_pretrained(directory, max_shard_size="100KB")
        assert len(list(directory.glob("*.safetensors"))) > 5
    stored = {}
    for shard in directory.glob("*.safetensors"):
        stored |= load_file(shard)
    return directory, stored


def test_every_stored_tensor_of_diffusion_gemma_is_claimed_once_and_equal(gemma):
    directory, stored = gemma
    loaded = load(directory, meta_shapes(hf_config.read_model_config(directory)), "diffusion_gemma")
    claimed = {name: model_name(name, "diffusion_gemma") for name in stored}
    skipped = {name for name, ours in claimed.items() if ours is None}
    assert skipped
    assert all("vision" in name for name in skipped)
    assert sorted(ours for ours in claimed.values() if ours) == sorted(loaded)
    for name in set(stored) - skipped:
        assert torch.equal(loaded[claimed[name]], stored[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_every_stored_tensor_of_llama_is_claimed_once_and_equal(tmp_path, tied):
    tiny.llama(tmp_path, seed=2, tie_word_embeddings=tied)
    stored = load_file(tmp_path / "model.safetensors")
    loaded = load(tmp_path, meta_shapes(hf_config.read_model_config(tmp_path)))
    assert len(loaded) == len(stored)
    assert ("lm_head.weight" in loaded) is not tied
    for name, value in stored.items():
        assert torch.equal(loaded[model_name(name, "llama")], value), name


def released():
    """Names and shapes of the released text model, encoder scalars included."""
    hidden, prefix = 2816, "model.decoder."
    shapes = {f"{prefix}embed_tokens.weight": (262_144, hidden), f"{prefix}norm.weight": (hidden,)}
    norms = "input_layernorm post_attention_layernorm pre_feedforward_layernorm"
    norms += " post_feedforward_layernorm post_feedforward_layernorm_1"
    norms += " post_feedforward_layernorm_2 pre_feedforward_layernorm_2"
    for layer in range(30):
        full = layer in (5, 11, 17, 23, 29)
        head, kv = (512, 2) if full else (256, 8)
        shapes |= {
            f"{prefix}layers.{layer}.{name}": shape
            for name, shape in {
                **{f"{norm}.weight": (hidden,) for norm in norms.split()},
                "self_attn.q_proj.weight": (16 * head, hidden),
                "self_attn.k_proj.weight": (kv * head, hidden),
                **({} if full else {"self_attn.v_proj.weight": (kv * head, hidden)}),
                "self_attn.o_proj.weight": (hidden, 16 * head),
                "self_attn.q_norm.weight": (head,),
                "self_attn.k_norm.weight": (head,),
                "mlp.gate_proj.weight": (2112, hidden),
                "mlp.up_proj.weight": (2112, hidden),
                "mlp.down_proj.weight": (hidden, 2112),
                "router.proj.weight": (128, hidden),
                "router.scale": (hidden,),
                "router.per_expert_scale": (128,),
                "experts.gate_up_proj": (128, 1408, hidden),
                "experts.down_proj": (128, hidden, 704),
                "layer_scalar": (1,),
            }.items()
        }
    assert len(shapes) == 657  # text layers, embedding and final norm
    shapes |= {f"model.encoder.language_model.layers.{i}.layer_scalar": (1,) for i in range(30)}
    conditioning = {"pre_norm": (hidden,), "gate_proj": (2112, hidden), "up_proj": (2112, hidden)}
    conditioning["down_proj"] = (hidden, 2112)
    for name, shape in conditioning.items():
        shapes[f"{prefix}self_conditioning.{name}.weight"] = shape
    return shapes


RELEASED_TEXT = {
    "vocab_size": 262_144,
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "num_hidden_layers": 30,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 2,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 1024,
    "num_experts": 128,
    "top_k_experts": 8,
    "moe_intermediate_size": 704,
    "max_position_embeddings": 262_144,
}


def test_the_released_names_and_shapes_are_those_of_the_model_one_to_one():
    config = hf_config.model_config(
        {"model_type": "diffusion_gemma", "text_config": RELEASED_TEXT}, {}
    )
    mapped = [(model_name(name, "diffusion_gemma"), shape) for name, shape in released().items()]
    assert len(dict(mapped)) == len(mapped) == 691
    assert dict(mapped) == meta_shapes(config)


@pytest.mark.parametrize(
    ("stored", "family", "name"),
    [
        ("model.encoder.vision_tower.patch_embedder.input_proj.weight", "diffusion_gemma", None),
        ("model.encoder.embed_vision.embedding_projection.weight", "diffusion_gemma", None),
        (
            "model.encoder.language_model.layers.7.layer_scalar",
            "diffusion_gemma",
            "layers.7.encoder_layer_scalar",
        ),
        (
            "model.layers.3.post_attention_layernorm.weight",
            "llama",
            "layers.3.pre_feedforward_layernorm.weight",
        ),
        (
            "model.decoder.layers.3.post_attention_layernorm.weight",
            "diffusion_gemma",
            "layers.3.post_attention_layernorm.weight",
        ),
        ("model.layers.3.self_attn.rotary_emb.inv_freq", "llama", None),
        ("lm_head.weight", "llama", "lm_head.weight"),
        ("optimizer.step", "llama", "optimizer.step"),
    ],
)
def test_a_stored_name_maps_to_the_models(stored, family, name):
    assert model_name(stored, family) == name


def test_the_encoder_scalar_falls_back_to_the_decoders_copy(tmp_path):
    tensors = {"model.decoder.layers.0.layer_scalar": torch.tensor([0.25])}
    save_file(tensors, tmp_path / "model.safetensors")
    shapes = {"layers.0.layer_scalar": (1,), "layers.0.encoder_layer_scalar": (1,)}
    loaded = load(tmp_path, shapes, "diffusion_gemma")
    assert loaded["layers.0.encoder_layer_scalar"].item() == 0.25
    loaded["layers.0.encoder_layer_scalar"].zero_()
    assert loaded["layers.0.layer_scalar"].item() == 0.25


def test_a_stored_head_of_a_tied_model_is_skipped(tmp_path):
    tensors = {"lm_head.weight": torch.ones(2, 3), "model.a": torch.ones(2, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert list(load(tmp_path, {"a": (2, 3)})) == ["a"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_in_the_dtype_asked_for_and_own_their_memory(tmp_path, dtype):
    write_pair(tmp_path, b=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16))
    loaded = load(tmp_path, PAIR, dtype=dtype)
    assert {value.dtype for value in loaded.values()} == {dtype}
    with (tmp_path / "model.safetensors").open("r+b") as file:  # a view of it would change
        file.write(bytes((tmp_path / "model.safetensors").stat().st_size))
    assert loaded["b"].tolist() == [1, 2, 3, 4]


def test_without_a_dtype_tensors_stay_as_they_are_stored(tmp_path):
    write_pair(tmp_path, b=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16))
    loaded = load(tmp_path, PAIR, dtype=None)
    assert loaded["b"].dtype is torch.bfloat16
    assert loaded["b"].tolist() == [1, 2, 3, 4]


def test_one_shard_is_open_and_one_stored_tensor_held_at_a_time(tmp_path, monkeypatch):
    write_shards(tmp_path)
    write(tmp_path, {"a": torch.ones(2, 3), "c": torch.ones(5)}, "one.safetensors")
    files = ("one.safetensors", "two.safetensors", "one.safetensors")
    write_index(tmp_path, dict(zip(("model.a", "model.b", "model.c"), files, strict=True)))
    opened, most_open, held = [], [], []

    class Spy:
        def __init__(self, *arguments, **options):
            self._inner = real(*arguments, **options)

        def __enter__(self):
            opened.append(self)
            most_open.append(len(opened))
            self._file = self._inner.__enter__()
            return self

        def __exit__(self, *error):
            opened.remove(self)
            return self._inner.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def get_tensor(self, name):
            assert all(earlier() is None for earlier in held), "an earlier tensor is still held"
            tensor = self._file.get_tensor(name)
            held.append(weakref.ref(tensor))
            return tensor

    real = shards.safe_open
    monkeypatch.setattr(shards, "safe_open", Spy)
    loaded = load(tmp_path, {**PAIR, "c": (5,)})
    assert sorted(loaded) == ["a", "b", "c"]
    assert len(held) == 3
    assert max(most_open) == 1
    assert not opened


def test_progress_counts_bytes(tmp_path):
    write_pair(tmp_path, b=torch.ones(4, dtype=torch.float16))
    seen = []
    load(tmp_path, PAIR, progress=lambda fraction, text: seen.append((fraction, text)))
    assert [round(fraction * 32) for fraction, _ in seen] == [24, 32]
    assert seen[-1][1].startswith("loading weights")


@pytest.mark.parametrize(
    ("changes", "shapes", "words"),
    [
        ({}, {**PAIR, "c": (1,)}, "1 tensors are missing.*: c$"),
        (
            {},
            {**PAIR, **{f"c{i}": (1,) for i in range(9)}},
            "9 tensors.*c0; c1; c2; c3; and 5 more",
        ),
        ({"c": torch.ones(1)}, PAIR, "unexpected.*model.c"),
        ({"a": torch.ones(3, 2)}, PAIR, r"model.a is \[3, 2\] but must be \[2, 3\]"),
        ({"a": torch.ones(2, 3, dtype=torch.int8)}, PAIR, "dtype.*model.a is I8"),
        (
            {"layers.0.post_attention_layernorm.w": torch.ones(1)}
            | {"layers.0.pre_feedforward_layernorm.w": torch.ones(1)},
            PAIR,
            "stored twice",
        ),
    ],
)
def test_tensors_that_are_not_the_models_are_named(tmp_path, changes, shapes, words):
    write_pair(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path, shapes)


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start=0, end=8, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DAMAGED = {
    "empty": b"",
    "cut in the length": b"\x10\x00",
    "header beyond the file": raw({"model.a": entry()}, bytes(8), length=10_000),
    "header of 2^63 bytes": raw({"model.a": entry()}, bytes(8), length=2**63),
    "bad JSON": raw(b'{"model.a":'),
    "not UTF-8": raw(b"\xff\xfe{}"),
    "a list": raw([]),
    "deep nesting": raw(b'{"a":' + b"[" * 50_000),
    "truncated data": raw({"model.a": entry()}, bytes(4)),
    "data nobody claims": raw({"model.a": entry()}, bytes(12)),
    "overlap": raw({"model.a": entry(), "model.b": entry(4, 12)}, bytes(12)),
    "a hole": raw({"model.a": entry(), "model.b": entry(12, 20)}, bytes(20)),
    "out of range": raw({"model.a": entry(0, 2**40)}, bytes(8)),
    "negative offset": raw({"model.a": entry(-8, 0)}, bytes(8)),
    "shape that overflows": raw({"model.a": entry(shape=(2**40, 2**40))}, bytes(8)),
    "unknown dtype": raw({"model.a": entry(dtype="F99")}, bytes(8)),
    "a name twice": raw(
        b'{"model.a":%s,"model.a":%s}'
        % (json.dumps(entry()).encode(), json.dumps(entry(8, 16)).encode()),
        bytes(16),
    ),
    "a pickle": b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_shard_is_refused_by_name(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(tmp_path, {"a": (2,)})


OUTSIDE = ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..\\one.safetensors", ".."]


@pytest.mark.parametrize(
    "file", [*OUTSIDE, "C:one.safetensors", "one\0.safetensors", "", 7, None, []]
)
def test_an_index_may_name_only_files_beside_it(tmp_path, file):
    directory = tmp_path / "model"
    directory.mkdir()
    weight_map = write_shards(directory)
    write(tmp_path, {"a": torch.ones(2, 3)}, "one.safetensors")
    write_index(directory, {**weight_map, "model.a": file})
    with pytest.raises(CheckpointError, match="is not the name of a safetensors file beside it"):
        load(directory, PAIR)


def test_a_link_out_of_the_directory_is_refused(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    write_shards(directory)
    (directory / "one.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (directory / "one.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match=r"one\.safetensors is a link out of"):
        load(directory, PAIR)


def test_the_links_of_a_hugging_face_cache_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "f00d", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_pair(snapshot)
    (snapshot / "model.safetensors").rename(blobs / "beef")
    (snapshot / "model.safetensors").symlink_to("../../blobs/beef")
    assert sorted(load(snapshot, PAIR)) == ["a", "b"]


def test_a_shard_of_the_index_must_be_there(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"two\.safetensors is missing"):
        load(tmp_path, PAIR)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    write_shards(tmp_path)
    write(tmp_path, {"a": torch.ones(2, 3), "b": torch.ones(4)}, "two.safetensors")
    with pytest.raises(CheckpointError, match=r"disagree.*model\.a is in two\.safetensors"):
        load(tmp_path, PAIR)


def test_a_tensor_of_the_index_must_be_in_its_shard(tmp_path):
    write_index(tmp_path, {**write_shards(tmp_path), "model.c": "two.safetensors"})
    with pytest.raises(CheckpointError, match=r"model\.c is not in two\.safetensors"):
        load(tmp_path, PAIR)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ('{"weight_map": ', "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "weight_map must map"),
        ('{"weight_map": {}}', "weight_map must map"),
        ('{"weight_map": ["model.safetensors"]}', "weight_map must map"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index, words):
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path, PAIR)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickles_are_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED["a pickle"])
    with pytest.raises(CheckpointError, match=f"only pickled weights .{name}.*convert"):
        load(tmp_path, PAIR)


def test_an_empty_directory_a_file_and_nothing_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load(tmp_path, PAIR)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=f"{path.name} is not a directory"):
            load(path, PAIR)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}, r"quantised \(fp8\)"),
        ("config.json", {"quantization_config": {}}, r"quantised \(unknown\)"),
        ("config.json", {"quantization": {"format": "dg-other"}}, r"quantised \(dg-other\)"),
        ("config.json", {"quantization": {"bits": 4}}, r"quantised \(unknown\)"),
        ("hf_quant_config.json", {}, r"quantised \(modelopt unknown\)"),
        ("config.json", [], "must hold a JSON object"),
    ],
)
def test_a_quantised_checkpoint_is_refused_by_its_scheme(tmp_path, file, content, words):
    write_pair(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path, PAIR)


def packed_parts(name="a", seed=0, shape=(3, 64)):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    made = packed.pack(values, 4, 32)
    return made, made.named(name)


def write_packed(directory, tensors):
    write(directory, tensors)
    config = {"quantization": {"format": packed.FORMAT}}
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_matrices_are_unpacked_beside_plain_tensors(tmp_path, dtype):
    made, parts = packed_parts()
    write_packed(tmp_path, {**parts, "b": torch.arange(4.0)})
    seen = []
    shapes = {"a": (3, 64), "b": (4,)}
    loaded = load(tmp_path, shapes, dtype=dtype, progress=lambda done, text: seen.append(done))
    assert torch.equal(loaded["a"], made.unpack(dtype))
    assert loaded["b"].tolist() == [0, 1, 2, 3]
    assert seen[-1] == 1.0
    assert seen[0] == pytest.approx((96 + 24) / (96 + 24 + 16))


def test_a_packed_head_of_a_tied_model_is_skipped(tmp_path):
    made, parts = packed_parts()
    write_packed(tmp_path, parts)
    save_file(
        {**load_file(tmp_path / "model.safetensors"), **made.named("lm_head.weight")},
        tmp_path / "model.safetensors",
    )
    assert list(load(tmp_path, {"a": (3, 64)})) == ["a"]


BENT = {
    "a part is missing": (
        lambda parts: parts.pop("a.minima"),
        r"model\.a is packed in parts.*: codes",
    ),
    "a part is of another dtype": (
        lambda parts: parts.update({"a.scales": parts["a.scales"].float()}),
        r"parts it cannot have: codes U8, minima F16, scales F32",
    ),
    "parts do not fit": (
        lambda parts: parts.update({"a.codes": parts["a.codes"][:2].clone()}),
        r"model\.a has .*: codes \[2, 8, 4\], scales .* make no matrix",
    ),
    "another shape": (
        lambda parts: parts.update(packed_parts(shape=(3, 32))[1]),
        r"model\.a is \[3, 32\] but must be \[3, 64\]",
    ),
    "no number": (
        lambda parts: parts["a.scales"].fill_(torch.inf),
        r"model\.safetensors: model\.a: .* no number; fetch it again",
    ),
}


@pytest.mark.parametrize(("bend", "words"), BENT.values(), ids=BENT)
def test_packed_matrices_that_are_damaged_are_named(tmp_path, bend, words):
    _, parts = packed_parts()
    bend(parts)
    write_packed(tmp_path, parts)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path, {"a": (3, 64)})


def test_packed_parts_without_the_mark_are_not_taken_for_a_matrix(tmp_path):
    write(tmp_path, packed_parts()[1])
    with pytest.raises(CheckpointError, match="missing, the model has no weights without them: a"):
        load(tmp_path, {"a": (3, 64)})


def test_headers_of_packed_matrices_are_checked_before_any_weight_is_read(tmp_path, monkeypatch):
    write_packed(tmp_path, packed_parts()[1])
    monkeypatch.setattr(checkpoint._Piece, "read", None)
    with pytest.raises(CheckpointError, match=r"must be \[3, 65\]"):
        load(tmp_path, {"a": (3, 65)})


def test_weights_are_saved_in_shards_of_bounded_size_and_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SHARD_BYTES", 300)
    made, _ = packed_parts()
    weights = {
        f"model.{name}": torch.full((2, 32), float(i)).half() for i, name in enumerate("bcd")
    }
    checkpoint.save_shards({**weights, "model.a": made}, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {"format": packed.FORMAT}}))
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    loaded = load(tmp_path, {"a": (3, 64), **dict.fromkeys("bcd", (2, 32))})
    assert torch.equal(loaded["a"], made.unpack())
    assert [loaded[name][0, 0].item() for name in "bcd"] == [0, 1, 2]


def test_the_same_weights_are_saved_as_the_same_bytes(tmp_path):
    made, _ = packed_parts()
    for name, turned in (("one", 1), ("two", -1)):
        (tmp_path / name).mkdir()
        weights = [("b", torch.ones(4)), ("a", made), ("c", torch.zeros(4))][::turned]
        checkpoint.save_shards(dict(weights), tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two


def test_weights_that_cannot_be_written_are_reported(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*a\.safetensors"):
        checkpoint.save_safetensors({"a": torch.ones(1)}, tmp_path / "a.safetensors")
