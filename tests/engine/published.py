"""Checkpoints as others publish them in few bits, made here from a plain one by code of its own.

Each writer returns the values its codes stand for, so that the loader has something to be held to.
"""

import json
import re
import shutil

import torch
from safetensors.torch import load_file, save_file

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
EXPERTS = re.compile(r"(model\.decoder\.layers\.\d+\.experts)\.(gate_up|down)_proj")
LINEAR = re.compile(r"model\.decoder\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
IGNORED = ["lm_head", "re:.*embed.*", "re:.*router.*", "re:.*vision_tower.*", "re:.*self_cond.*"]


def fp8(w):
    scale = (w.abs().amax(-1, keepdim=True) / 448).bfloat16()
    codes = (w / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale.float()


def w4a16(w, group=32):
    rows, columns = w.shape
    grouped = w.view(rows, -1, group)
    scale = (grouped.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    codes = (grouped / scale).round().clamp(-8, 7)
    words = torch.zeros(rows, columns // 8, dtype=torch.int64)
    for place in range(8):
        words += (codes.view(rows, columns).long()[:, place::8] + 8) << 4 * place
    parts = {
        "weight_packed": torch.where(words >= 2**31, words - 2**32, words).int(),
        "weight_scale": scale[..., 0].bfloat16(),
        "weight_shape": torch.tensor([rows, columns]),
    }
    return parts, (codes * scale).view(rows, columns)


def _nvfp4(w, factor):
    """Codes, stored scales and values where a value is code · scale · factor."""
    grouped = w.view(len(w), -1, 16)
    scale = (grouped.abs().amax(-1, keepdim=True) / 6 / factor).to(torch.float8_e4m3fn)
    unit = scale.float() * factor
    nearest = ((grouped / unit).abs()[..., None] - E2M1).abs().argmin(-1)
    codes = (nearest + 8 * (grouped < 0)).view(len(w), -1).to(torch.uint8)
    values = (E2M1[nearest] * grouped.sign() * unit).view(w.shape)
    return codes[:, ::2] + 16 * codes[:, 1::2], scale[..., 0], values


def nvfp4(w):
    factor = w.abs().max() / (6 * 448)
    codes, scale, values = _nvfp4(w, factor)
    parts = {
        "weight_packed": codes,
        "weight_scale": scale,
        "weight_global_scale": (1 / factor).view(1),
        "input_global_scale": torch.ones(1),
    }
    return parts, values


def modelopt(w):
    factor = w.abs().max() / (6 * 448)
    codes, scale, values = _nvfp4(w, factor)
    parts = {
        "weight": codes,
        "weight_scale": scale,
        "weight_scale_2": factor.clone(),
        "input_scale": torch.tensor(0.01),
    }
    return parts, values


def compressed_tensors(form, weights, **more):
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": IGNORED,
        **more,
    }


FP8_CONFIG = compressed_tensors(
    "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}
)
W4A16_CONFIG = compressed_tensors(
    "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
)
NVFP4_CONFIG = compressed_tensors(
    "nvfp4-pack-quantized",
    {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
)
MODELOPT_CONFIG = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "producer": {"name": "modelopt"},
    "ignore": ["lm_head", "*self_attn*", "*.mlp.*", "*router*", "*self_conditioning*", "*embed*"],
}
# Scheme: the config, how a matrix is written, whether attention and MLP are written like this too.
SCHEMES = {
    "compressed-tensors FP8": (FP8_CONFIG, fp8, True),
    "compressed-tensors W4A16": (W4A16_CONFIG, w4a16, True),
    "compressed-tensors NVFP4": (NVFP4_CONFIG, nvfp4, True),
    "modelopt NVFP4": (MODELOPT_CONFIG, modelopt, False),
}


def publish(plain, directory, scheme, shards=1):
    """Writes the model in `plain` to `directory` in few bits, and its values to `directory/values`."""
    config, rounded, dense = SCHEMES[scheme]
    written, values = {}, {}
    for name, tensor in load_file(plain / "model.safetensors").items():
        if match := EXPERTS.fullmatch(name):
            values[name] = torch.empty_like(tensor)
            for expert, stacked in enumerate(tensor):
                halves = ("gate", "up") if match[2] == "gate_up" else ("down",)
                wide = len(stacked) // len(halves)
                for i, half in enumerate(halves):
                    rows = slice(i * wide, (i + 1) * wide)
                    parts, values[name][expert, rows] = rounded(stacked[rows].contiguous())
                    for part, value in parts.items():
                        written[f"{match[1]}.{expert}.{half}_proj.{part}"] = value
        elif dense and LINEAR.fullmatch(name):
            parts, values[name] = rounded(tensor)
            written |= {f"{name.removesuffix('.weight')}.{p}": value for p, value in parts.items()}
        else:
            written[name] = values[name] = tensor
    for target, tensors, extra in (
        (directory, written, {"quantization_config": config}),
        (directory / "values", values, {}),
    ):
        shutil.copytree(plain, target, ignore=shutil.ignore_patterns("*.safetensors"))
        settings = json.loads((plain / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**settings, **extra}))
        if target is directory and shards > 1:
            _write_shards(target, tensors, shards)
        else:
            save_file(tensors, target / "model.safetensors")
    return written


def _write_shards(directory, tensors, count):
    """Parts of one weight in different shards, as a cut by size leaves them."""
    names = sorted(tensors)
    weight_map = {name: f"model-{i % count}.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        held = {n: t for n, t in tensors.items() if weight_map[n] == shard}
        save_file(held, directory / shard)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
