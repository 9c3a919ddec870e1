"""How weights of few bits lie in a model's files: recognised by config.json, never guessed.

A layout says which stored tensors are the parts of one weight, and what they make. Published ones
are read as they are: compressed-tensors (FP8, W4A16, NVFP4) and ModelOpt's NVFP4; what they
calibrated for activations is not used. Knows nothing of shards and of the model's names.

Source: the packages compressed-tensors (compressors, `match_name`) and nvidia-modelopt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import hf_config, packed
from engine.errors import CheckpointError, ConfigError
from engine.packed import Packed
from engine.weights import Fp4Weight, Fp8Weight, Int4Weight, PackedWeight

OURS = "dg-weights"  # the `format` under `quantization` in config.json of what we write
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names of dtypes
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
}
_READS = (
    "compressed-tensors float-quantized (FP8 per channel), pack-quantized (4 bits, symmetric) and "
    "nvfp4-pack-quantized, and modelopt NVFP4"
)
# Calibrated scales of activations, keys and values, which this engine keeps finer.
_UNUSED = frozenset({"input_scale", "input_global_scale", "k_scale", "v_scale"})

_LINEAR = frozenset({"Linear", "MoELinear"})  # targets that stand for all linear layers

Stored = Packed | PackedWeight


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of one weight, with the dtypes each may have, and what they make."""

    parts: Mapping[str, tuple[str, ...]]
    make: Callable[[Mapping[str, Tensor]], Stored]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a directory's files hold.

    A stored name that ends in one of `parts` is a part of the weight `STEM + suffix`; `form` tells
    which form the stem's parts, given with their dtypes, should have. A part of floats that stands
    alone is a plain tensor. Names that end in one of `unused` are skipped.
    """

    parts: frozenset[str]
    suffix: str
    form: Callable[[str, Mapping[str, str]], Form]
    unused: frozenset[str] = frozenset()


def of_directory(directory: Path) -> Layout:
    """The layout that the directory's config.json describes; raises when it is not one of ours."""
    config = _json(directory / "config.json")
    theirs, ours = config.get("quantization_config"), config.get("quantization")
    if theirs is None and (directory / "hf_quant_config.json").is_file():
        modelopt = _json(directory / "hf_quant_config.json")
        theirs = {"quant_method": "modelopt", **_object(modelopt.get("quantization"))}
    if theirs is not None:
        return _published(_object(theirs), directory)
    if ours is None:
        return _one_of()
    name = _object(ours).get("format", "unknown")
    if name == packed.FORMAT:
        return _one_of(_DG_PACKED)
    if name == OURS:
        return _one_of(_FP8, _INT4, _INT4_SCALED)
    raise _unknown(directory, str(name))


def make(form: Form, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> Stored:
    """The weight without values that parts of these shapes make; raises when they make none."""
    kinds_fit = all(dtypes.get(part) in kinds for part, kinds in form.parts.items())
    if not kinds_fit or set(dtypes) != set(form.parts):
        held = ", ".join(f"{part} {dtype}" for part, dtype in sorted(dtypes.items()))
        raise CheckpointError(f"is packed in parts it cannot have: {held}")
    parts = {
        part: torch.empty(shape, dtype=DTYPES[dtypes[part]], device="meta")
        for part, shape in shapes.items()
    }
    try:
        return form.make(parts)
    except (CheckpointError, RuntimeError) as error:
        raise CheckpointError(f"has parts that do not fit: {error}") from None


def _published(config: Mapping[str, Any], directory: Path) -> Layout:
    method = config.get("quant_method", "unknown")
    if method == "compressed-tensors":
        schemes = _schemes(config, directory)
        ignored = [str(name) for name in config.get("ignore") or ()]

        def form_of(stem: str) -> Form | None:
            if any(_matches(stem, name) for name in ignored):
                return None
            by_name = (s.form for s in schemes if any(_matches(stem, t) for t in s.targets))
            by_class = (s.form for s in schemes if not _LINEAR.isdisjoint(s.targets))
            return next(by_name, None) or next(by_class, None)

    elif method == "modelopt":
        if config.get("quant_algo") != "NVFP4" or config.get("group_size", 16) != 16:
            raise _unknown(directory, f"modelopt {config.get('quant_algo', 'unknown')}")
        excluded = [*(config.get("ignore") or ()), *(config.get("exclude_modules") or ())]

        def form_of(stem: str) -> Form | None:
            return None if any(fnmatchcase(stem, str(n)) for n in excluded) else _MODELOPT_NVFP4

    else:
        raise _unknown(directory, str(method))

    def form(stem: str, dtypes: Mapping[str, str]) -> Form:
        if found := form_of(stem):
            return found
        raise CheckpointError(
            f"{directory}: {stem} is stored in few bits ({', '.join(sorted(dtypes))}), "
            "but by the quantization_config of config.json it is not; fetch the model again"
        )

    return Layout(_PUBLISHED_PARTS, ".weight", form, _UNUSED)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """One of the `config_groups` of compressed-tensors."""

    targets: tuple[str, ...]
    form: Form


def _schemes(config: Mapping[str, Any], directory: Path) -> list[_Scheme]:
    for key in ("sparsity_config", "transform_config"):
        if _object(config.get(key)).get("format") != "dense" and config.get(key):
            raise _unknown(directory, f"compressed-tensors with a {key}")
    found = []
    for group in _object(config.get("config_groups")).values():
        weights = _object(_object(group).get("weights"))
        name = group.get("format") or config.get("format")
        form = _scheme_form(str(name), weights)
        if form is None:
            keys = ("num_bits", "type", "strategy", "group_size", "symmetric", "actorder")
            said = [f"{key} {weights[key]}" for key in keys if weights.get(key) is not None]
            described = ", ".join(said)
            raise _unknown(directory, f"compressed-tensors {name}: {described or 'no weights'}")
        found.append(_Scheme(tuple(map(str, group.get("targets") or ())), form))
    if not found:
        raise _unknown(directory, "compressed-tensors without config_groups")
    return found


def _scheme_form(name: str, weights: Mapping[str, Any]) -> Form | None:
    bits, kind = weights.get("num_bits"), weights.get("type")
    strategy, group = weights.get("strategy"), weights.get("group_size")
    if not weights.get("symmetric", True) or weights.get("actorder") in ("group", "dynamic"):
        return None
    match name, bits, kind, strategy:
        case "float-quantized" | "naive-quantized", 8, "float", "channel":
            return _CT_FP8
        case "nvfp4-pack-quantized", 4, "float", "tensor_group" if group == 16:
            return _CT_NVFP4
        case "pack-quantized", 4, "int", "channel":
            return _CT_INT4
        case "pack-quantized", 4, "int", "group" if isinstance(group, int) and group % 32 == 0:
            return _CT_INT4
    return None


def _matches(stem: str, name: str) -> bool:
    if name.startswith("re:"):
        return re.match(name.removeprefix("re:"), stem) is not None
    return name == stem


def _one_of(*forms: Form) -> Layout:
    """Our own layouts: the form is the one with these parts; none fits: the first one complains."""

    def form(stem: str, dtypes: Mapping[str, str]) -> Form:
        fitting = (
            f
            for f in forms
            if f.parts.keys() == dtypes.keys() and all(dtypes[p] in k for p, k in f.parts.items())
        )
        return next(fitting, forms[0])

    return Layout(frozenset[str]().union(*(form.parts for form in forms)), "", form)


def _ct_fp8(parts: Mapping[str, Tensor]) -> Fp8Weight:
    return Fp8Weight(parts["weight"], parts["weight_scale"].float().view(len(parts["weight"])))


def _ct_int4(parts: Mapping[str, Tensor]) -> Int4Weight:
    """Eight nibbles in an int32, the first the lowest: on disk these are our bytes already."""
    codes, scale = parts["weight_packed"].view(torch.uint8), parts["weight_scale"]
    values = 2 * codes.shape[1]
    shape = parts["weight_shape"]
    if not shape.is_meta and shape.tolist() != [len(codes), values]:
        raise CheckpointError(f"weight_shape is {shape.tolist()}, not {[len(codes), values]}")
    group = values // max(1, scale.shape[1])
    ours = 64 if group % 64 == 0 else 32  # a larger group is several of ours with one scale
    return Int4Weight(codes, scale.bfloat16().repeat_interleave(group // ours, 1))


def _nvfp4(codes: Tensor, scale: Tensor, factor: Tensor) -> Fp4Weight:
    return Fp4Weight(codes, scale, factor.reshape(1).expand(len(codes)).contiguous())


_CT_FP8 = Form({"weight": ("F8_E4M3",), "weight_scale": FLOATS}, _ct_fp8)
_CT_INT4 = Form(
    {"weight_packed": ("I32",), "weight_scale": FLOATS, "weight_shape": ("I64", "I32")}, _ct_int4
)
_CT_NVFP4 = Form(
    {"weight_packed": ("U8",), "weight_scale": ("F8_E4M3",), "weight_global_scale": ("F32",)},
    # Stored is by what the scales were multiplied before they were rounded.
    lambda p: _nvfp4(p["weight_packed"], p["weight_scale"], 1 / p["weight_global_scale"]),
)
_MODELOPT_NVFP4 = Form(
    {"weight": ("U8",), "weight_scale": ("F8_E4M3",), "weight_scale_2": ("F32",)},
    lambda p: _nvfp4(p["weight"], p["weight_scale"], p["weight_scale_2"]),
)
_PUBLISHED_PARTS = frozenset(
    {"weight_zero_point", "weight_g_idx"}  # of schemes that are refused: named where they stand
).union(*(form.parts for form in (_CT_FP8, _CT_INT4, _CT_NVFP4, _MODELOPT_NVFP4)))
_DG_PACKED = Form({part: (dtype,) for part, dtype in packed.PARTS.items()}, lambda p: Packed(**p))
_FP8 = Form({"codes": ("F8_E4M3",), "scale": ("F32",)}, lambda p: Fp8Weight(**p))
_INT4 = Form({"codes": ("U8",), "scale": ("BF16",)}, lambda p: Int4Weight(**p))
_INT4_SCALED = Form(
    {"codes": ("U8",), "scale": ("F8_E4M3",), "factor": ("F32",)}, lambda p: Int4Weight(**p)
)


def _unknown(directory: Path, scheme: str) -> CheckpointError:
    return CheckpointError(
        f"{directory} is quantised ({scheme}), which this engine does not read; it reads {_READS}, "
        "or take the bfloat16 release"
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return hf_config.read_json(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
