"""Published checkpoints in few bits: read as they are, equal to their values, refused when unknown."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from engine.cache import PrefixCache
from engine.config import EngineConfig
from engine.errors import CheckpointError
from engine.kernels import reference
from engine.loading import load_model
from engine.request import InfillRequest
from engine.runtime import Engine
from engine.weights import Fp4Weight, Fp8Weight, Int4Weight, PackedWeight
from tests.engine import published, tiny

CPU = torch.device("cpu")
IDS = torch.randint(5, tiny.VOCAB, (12,), generator=torch.Generator().manual_seed(1)).tolist()
KINDS = {
    "compressed-tensors FP8": Fp8Weight,
    "compressed-tensors W4A16": Int4Weight,
    "compressed-tensors NVFP4": Fp4Weight,
    "modelopt NVFP4": Fp4Weight,
}


def load(directory):
    return load_model(directory, dtype=torch.float32, device=CPU)


@torch.inference_mode()
def logits(model):
    cache = PrefixCache(model.config, CPU, model.dtype)
    causal = model.encode(IDS[:8], cache)[0]
    return model.logits(torch.cat((causal, model.canvas(torch.tensor([IDS[8:]]), cache, None)[0])))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny model whose every row is a whole number of groups."""
    directory = tmp_path_factory.mktemp("plain")
    tiny.diffusion_gemma(directory, seed=3, num_hidden_layers=2, moe_intermediate_size=32)
    return directory


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("scheme", published.SCHEMES)
def test_a_published_model_is_that_of_its_values(plain, tmp_path, monkeypatch, scheme, shards):
    directory = tmp_path / "model"
    published.publish(plain, directory, scheme, shards)
    ours, expected = load(directory), load(directory / "values")
    wanted = dict(expected.weights())
    packed = {}
    for name, weight in ours.weights():
        if isinstance(weight, PackedWeight):
            packed[name] = weight
            weight = weight.dequantize(torch.float32)
        torch.testing.assert_close(weight, wanted.pop(name), rtol=1e-6, atol=1e-7)
    assert not wanted
    assert {type(weight) for weight in packed.values()} == {KINDS[scheme]}
    assert {n for n in packed if "experts" in n} == {
        f"layers.{i}.experts.{n}_proj" for i in (0, 1) for n in ("gate_up", "down")
    }
    assert any("self_attn" in n for n in packed) is (scheme != "modelopt NVFP4")
    assert not any("router" in n or "conditioning" in n or "embed" in n for n in packed)
    right = logits(expected)
    assert F.cosine_similarity(logits(ours), right).min() > 0.9  # FP8 rounds activations as well
    monkeypatch.setattr(reference, "fp8_rows", lambda x: (x.float(), torch.ones(1)))
    torch.testing.assert_close(logits(ours), right, rtol=1e-3, atol=1e-3)


def test_an_engine_runs_a_published_model_and_says_what_is_in_few_bits(plain, tmp_path):
    published.publish(plain, tmp_path / "model", "modelopt NVFP4")
    config = EngineConfig(model=tmp_path / "model", device="cpu", dtype="float32", quantize="fp8")
    engine = Engine.load(config)
    engine.infill(InfillRequest(prefix="re", max_tokens=3), cancelled=lambda: False)
    assert engine.describe()["weights"] == {
        "attention": "fp8",
        "dense MLP": "fp8",
        "experts": "fp4",
        "self-conditioning": "fp8",
        "head": "fp8",
    }


def rewrite(directory, change=None, **config):
    """Bends a written model: its tensors by `change`, its quantization_config by keywords."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    if change:
        change(tensors)
        save_file(tensors, path)
    settings = json.loads((directory / "config.json").read_text())
    settings["quantization_config"] |= config
    (directory / "config.json").write_text(json.dumps(settings))


def test_groups_of_several_formats_go_by_the_nearest_target(plain, tmp_path):
    directory = tmp_path / "model"
    published.publish(plain, directory, "modelopt NVFP4")
    name = "model.decoder.layers.0.mlp.up_proj"
    gate = "model.decoder.layers.0.mlp.gate_proj"

    def change(tensors):
        for stem, rounded in ((name, published.fp8), (gate, published.nvfp4)):
            parts, _ = rounded(tensors.pop(f"{stem}.weight"))
            tensors.update({f"{stem}.{part}": value for part, value in parts.items()})
        for old in [key for key in tensors if ".experts." in key]:
            parts = {"weight": "weight_packed", "weight_scale_2": "weight_global_scale"}
            stem, _, part = old.rpartition(".")
            value = tensors.pop(old)
            value = 1 / value.view(1) if part == "weight_scale_2" else value
            tensors[f"{stem}.{parts.get(part, part)}"] = value

    def group(config, targets):
        return {
            **config["config_groups"]["group_0"],
            "targets": targets,
            "format": config["format"],
        }

    groups = {
        "all": group(published.NVFP4_CONFIG, ["Linear"]),
        "up": group(published.FP8_CONFIG, [r"re:.*mlp\.up_proj"]),
    }
    mixed = {**published.FP8_CONFIG, "format": "mixed-precision", "config_groups": groups}
    rewrite(directory, change, **mixed, sparsity_config={"format": "dense"})
    layer = load(directory).layers[0]
    kinds = [type(w) for w in (layer.mlp.up_proj.weight, layer.mlp.gate_proj.weight)]
    assert kinds == [Fp8Weight, Fp4Weight]
    expected = dict(load(directory / "values").weights())["layers.0.experts.down_proj"]
    torch.testing.assert_close(layer.experts.down_proj.dequantize(torch.float32), expected)


def test_hf_quant_config_alone_marks_a_modelopt_model(plain, tmp_path):
    directory = tmp_path / "model"
    published.publish(plain, directory, "modelopt NVFP4")
    settings = json.loads((directory / "config.json").read_text())
    theirs = settings.pop("quantization_config")
    (directory / "config.json").write_text(json.dumps(settings))
    said = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": theirs["ignore"]}
    (directory / "hf_quant_config.json").write_text(json.dumps({"quantization": said}))
    kinds = {type(w) for _, w in load(directory).weights() if isinstance(w, PackedWeight)}
    assert kinds == {Fp4Weight}


def test_a_group_of_128_is_two_of_64_with_one_scale(tmp_path):
    plain = tmp_path / "plain"
    tiny.diffusion_gemma(plain, seed=3, num_hidden_layers=1, hidden_size=128)
    name = "model.decoder.layers.0.mlp.gate_proj"
    tensors = load_file(plain / "model.safetensors")
    parts, values = published.w4a16(tensors.pop(f"{name}.weight"), group=128)
    tensors |= {f"{name}.{part}": value for part, value in parts.items()}
    save_file(tensors, plain / "model.safetensors")
    group = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    config = published.compressed_tensors("pack-quantized", group)
    settings = json.loads((plain / "config.json").read_text())
    settings["quantization_config"] = config
    (plain / "config.json").write_text(json.dumps(settings))
    weight = load(plain).layers[0].mlp.gate_proj.weight
    assert weight.group == 64
    torch.testing.assert_close(weight.dequantize(torch.float32), values)


def test_a_router_stored_in_few_bits_gets_its_values(plain, tmp_path):
    directory = tmp_path / "model"
    published.publish(plain, directory, "compressed-tensors FP8")
    name = "model.decoder.layers.0.router.proj"
    parts, values = published.fp8(load_file(plain / "model.safetensors")[f"{name}.weight"])
    rewrite(
        directory,
        lambda tensors: tensors.update({f"{name}.{part}": v for part, v in parts.items()}),
        ignore=["lm_head"],
    )
    assert torch.equal(load(directory).layers[0].router.proj.weight, values)


GATE = "model.decoder.layers.1.experts.3.gate_proj"
BENT = {
    "an expert is missing": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith(f"{GATE}.")],
        r"missing.*: layers\.1\.experts\.gate_up_proj\[3,gate\]",
    ),
    "a scale is missing": (
        lambda t: t.pop(f"{GATE}.weight_scale"),
        r"experts\.3\.gate_proj is packed in parts it cannot have: weight F8_E4M3",
    ),
    "an expert too many": (
        lambda t: t.update({f"{GATE[:-11]}8.down_proj.weight": torch.ones(64, 32)}),
        r"unexpected.*experts\.8\.down_proj",
    ),
    "one plain expert": (
        lambda t: (t.update({f"{GATE}.weight": torch.ones(32, 64)}), t.pop(f"{GATE}.weight_scale")),
        r"stored in another way than the other experts.*experts\.3\.gate_proj",
    ),
    "an expert of another shape": (
        lambda t: t.update(
            {
                f"{GATE}.{part}": value
                for part, value in published.fp8(torch.ones(32, 32))[0].items()
            }
        ),
        r"experts\.3\.gate_proj is \[32, 32\] but must be \[32, 64\]",
    ),
    "a scale of another length": (
        lambda t: t.update({f"{GATE}.weight_scale": torch.ones(31, 1)}),
        r"experts\.3\.gate_proj has parts that do not fit",
    ),
    "a zero point": (
        lambda t: t.update({f"{GATE}.weight_zero_point": torch.zeros(32, 1)}),
        r"parts it cannot have: weight F8_E4M3, weight_scale BF16, weight_zero_point F32",
    ),
    "a bias": (
        lambda t: t.update({f"{GATE}.bias": torch.zeros(32)}),
        r"unexpected.*experts\.3\.gate_proj\.bias",
    ),
}


@pytest.mark.parametrize(("bend", "words"), BENT.values(), ids=BENT)
def test_tensors_that_do_not_make_the_model_are_named(plain, tmp_path, bend, words):
    published.publish(plain, tmp_path / "model", "compressed-tensors FP8")
    rewrite(tmp_path / "model", bend)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path / "model")


def groups(**weights):
    base = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
    return {"config_groups": {"g": {"targets": ["Linear"], "weights": {**base, **weights}}}}


UNKNOWN = {
    "another method": ({"quant_method": "gptq"}, r"quantised \(gptq\)"),
    "no method": ({"quant_method": None}, r"quantised \(None\)"),
    "another format": ({"format": "marlin-24"}, r"\(compressed-tensors marlin-24: num_bits 8"),
    "other bits": (groups(num_bits=6), "num_bits 6, type float, strategy channel"),
    "blocks": (groups(strategy="block"), "strategy block"),
    "one scale": (groups(strategy="tensor"), "strategy tensor"),
    "integers in 8 bits": (groups(type="int"), "type int"),
    "a zero point": (groups(symmetric=False), "symmetric False"),
    "a permutation": (groups(actorder="group"), "actorder group"),
    "no groups": ({"config_groups": {}}, "without config_groups"),
    "sparsity": ({"sparsity_config": {"format": "sparse"}}, "with a sparsity_config"),
    "a transform": ({"transform_config": {"config_groups": 1}}, "with a transform_config"),
    "another modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, r"\(modelopt FP8\)"),
    "mixed modelopt": (
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        r"\(modelopt MIXED_PRECISION\)",
    ),
    "everything ignored": (
        {"ignore": ["re:.*"]},
        "stored in few bits .* by the quantization_config",
    ),
    "experts ignored": ({"ignore": ["re:.*experts.*"]}, r"experts\.0\.\w+ is stored in few bits"),
    "another target": (
        {"config_groups": {"g": {**groups()["config_groups"]["g"], "targets": ["re:.*mlp.*"]}}},
        r"is stored in few bits",
    ),
}


@pytest.mark.parametrize(("config", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_scheme_this_engine_does_not_read_is_named_never_guessed(plain, tmp_path, config, words):
    published.publish(plain, tmp_path / "model", "compressed-tensors FP8")
    rewrite(tmp_path / "model", **config)
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path / "model")


def test_an_unknown_scheme_says_what_is_read(plain, tmp_path):
    published.publish(plain, tmp_path / "model", "compressed-tensors FP8")
    rewrite(tmp_path / "model", quant_method="awq")
    with pytest.raises(CheckpointError, match=r"it reads .*float-quantized.*pack-quantized.*NVFP4"):
        load(tmp_path / "model")


def test_a_packed_shape_that_is_not_the_weights_is_refused(plain, tmp_path):
    published.publish(plain, tmp_path / "model", "compressed-tensors W4A16")
    name = "model.decoder.layers.0.mlp.up_proj.weight_shape"
    rewrite(tmp_path / "model", lambda t: t.update({name: torch.tensor([96, 63])}))
    with pytest.raises(CheckpointError, match=r"mlp\.up_proj: weight_shape is \[96, 63\], not"):
        load(tmp_path / "model")
