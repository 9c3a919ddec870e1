"""Compiles every kernel for GPUs that are not at hand: registers, spills and shared memory of each.

`python -m bench.compile_kernels` prints the table, `--write` also puts it into COMPILED; `--here` only
fills Triton's cache for the GPU at hand, by all cores at once. The launches are recorded from the launchers themselves, called at the released model's shapes on
tensors without memory, so that what is compiled here is what runs there. Spills, and programs that
ask for more shared memory than the GPU has, end it with an error.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.kernel_cases import cases
from engine.kernels import launch
from engine.kernels.launch import Device

COMPILED = Path(__file__).with_name("compiled_kernels.md")
# One card of each architecture: RTX 4090, H100 and H200, RTX 5090.
TARGETS = {
    89: Device(processors=128, shared_memory=101_376),
    90: Device(processors=132, shared_memory=232_448),
    120: Device(processors=170, shared_memory=101_376),
}
# A token read causally, holes and canvases of all sizes, a chunk of a prompt.
ROWS = (1, 16, 32, 64, 128, 256, 384, 512)
Launch = tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]  # kernel, grid, arguments
_POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@dataclass(frozen=True, slots=True)
class Build:
    """One kernel with its constants, as it is compiled for one architecture."""

    architecture: int
    case: str
    module: str
    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]  # places of parameters that are multiples of 16
    options: tuple[tuple[str, int], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Builds with the same key are the same program."""
        return self.kernel, self.signature, self.constants, self.aligned, self.options

    @property
    def label(self) -> str:
        """The kernel's name and constants."""
        upper = [f"{name}={_short(value)}" for name, value in self.constants if name.isupper()]
        return f"{self.kernel}({', '.join(upper)})"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a compiled kernel takes: registers a thread, bytes of stack a thread, shared bytes."""

    build: Build
    registers: int
    stack: int
    shared: int

    @property
    def complaint(self) -> str:
        """Why the kernel must not ship; empty if it may."""
        limit = TARGETS[self.build.architecture].shared_memory
        where = f"{self.build.case}: {self.build.label} on sm_{self.build.architecture}"
        if self.stack:
            return f"{where} spills: {self.stack} bytes of stack"
        if self.shared > limit:
            return f"{where} takes {self.shared} bytes of shared memory, of {limit}"
        return ""


def builds(architecture: int, rows: tuple[int, ...] = ROWS) -> list[Build]:
    """What the launchers of all cases start on a GPU of this architecture, each once."""
    return list(launches(architecture, TARGETS[architecture], rows))


def compile_here(processes: int) -> None:
    """Fills Triton's cache with what all cases start on the GPU at hand; starts nothing."""
    device = launch.device_of(torch.empty(1, device="cuda"))
    # A process that has used CUDA cannot be forked.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(warm_up, parts=processes, device=device), range(processes)))


def warm_up(part: int, parts: int, device: Device) -> None:
    """Compiles one of so many parts of it, as the first launch of each kernel would."""
    for kernel, grid, args, meta in list(launches(0, device).values())[part::parts]:
        kernel.warmup(*args, grid=grid, **meta)


def launches(
    architecture: int, device: Device, rows: tuple[int, ...] = ROWS
) -> dict[Build, Launch]:
    """Each program once, and a launch of it (kernel, grid, arguments, constants), without memory."""
    found: dict[tuple[Any, ...], tuple[Build, Launch]] = {}
    case = ""

    def record(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
        build = _build(architecture, case, kernel, args, meta)
        found.setdefault(build.key, (build, (kernel, grid, args, meta)))

    with (
        mock.patch.object(launch, "run", record),
        mock.patch.object(launch, "device_of", lambda _: device),
    ):
        for one in cases(torch.device("meta"), rows):
            case = one.name
            one.fast(*one.args)
    return dict(found.values())


def compile_all(wanted: Iterable[Build], processes: int = 2) -> list[Usage]:
    """Compiles each build; raises what the compiler raises."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_compile, wanted, chunksize=4))


def table(usages: Iterable[Usage]) -> str:
    """Markdown: a row for each kernel, columns for each architecture."""
    rows: dict[tuple[str, str], dict[int, Usage]] = {}
    for usage in usages:
        key = (usage.build.case, usage.build.label)
        rows.setdefault(key, {})[usage.build.architecture] = usage
    names = [f"sm_{architecture}" for architecture in TARGETS]
    lines = [f"| first used by | kernel | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for (case, label), found in rows.items():
        cells = [_cell(found.get(architecture)) for architecture in TARGETS]
        lines.append(f"| {case} | `{label}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {COMPILED.name} as well")
    parser.add_argument("--here", action="store_true", help="for this GPU, into Triton's cache")
    args = parser.parse_args()
    if args.here:
        compile_here(min(16, os.cpu_count() or 1))
        return
    usages = compile_all([build for target in TARGETS for build in builds(target)])
    text = (
        f"# Compiled kernels\n\n`python -m bench.compile_kernels --write`, triton "
        f"{triton.__version__}. Registers a thread / KiB of shared memory / "
        f"warps; a kernel that spills is refused. None of this was measured on a GPU.\n\n{table(usages)}\n"
    )
    print(text)
    complaints = [usage.complaint for usage in usages if usage.complaint]
    if complaints:
        sys.exit("\n".join(complaints))
    if args.write:
        COMPILED.write_text(text, encoding="utf-8")


def _build(
    architecture: int, case: str, kernel: Any, args: tuple[Any, ...], meta: dict[str, Any]
) -> Build:
    named = dict(zip(kernel.arg_names, args, strict=False))
    named |= {name: value for name, value in meta.items() if name in kernel.arg_names}
    assert list(named) == kernel.arg_names, f"{kernel.__name__} was started without all arguments"
    constexpr = {p.name for p in kernel.params if p.is_constexpr}
    signature, constants, aligned = [], [], []
    for place, (name, value) in enumerate(named.items()):
        # Triton's launcher makes constants of None and 1, too.
        constant = name in constexpr or value is None or (type(value) is int and value == 1)
        signature.append((name, "constexpr" if constant else _type(value)))
        if constant:
            constants.append((name, value))
        elif isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            aligned.append(place)
    return Build(
        architecture=architecture,
        case=case,
        module=kernel.fn.__module__,
        kernel=kernel.__name__,
        signature=tuple(signature),
        constants=tuple(constants),
        aligned=tuple(aligned),
        options=tuple((name, meta[name]) for name in ("num_warps", "num_stages") if name in meta),
    )


def _compile(build: Build) -> Usage:
    kernel = compiled(build)
    found = re.search(r"REG:(\d+) STACK:(\d+)", _cuobjdump("-res-usage", kernel))
    assert found, f"cuobjdump says nothing of registers in {build.label}"
    return Usage(build, int(found[1]), int(found[2]), kernel.metadata.shared)


def compiled(build: Build) -> Any:
    """Triton's compiled kernel; what is compiled once is kept in its cache."""
    kernel = getattr(sys.modules[build.module], build.kernel)
    source = ASTSource(
        fn=kernel,
        signature=dict(build.signature),
        constexprs={(kernel.arg_names.index(name),): value for name, value in build.constants},
        attrs={(place,): [["tt.divisibility", 16]] for place in build.aligned},
    )
    target = GPUTarget("cuda", build.architecture, 32)
    return triton.compile(source, target=target, options=dict(build.options))


def disassembled(kernel: Any) -> str:
    """The machine code of a compiled kernel."""
    return _cuobjdump("-sass", kernel)


def _cuobjdump(what: str, kernel: Any) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        done = subprocess.run([tool, what, file.name], check=True, capture_output=True, text=True)
    return done.stdout


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, int):
        return "i32" if abs(value) < 2**31 else "i64"
    return "fp32"


def _cell(usage: Usage | None) -> str:
    if usage is None:
        return "–"
    warps = dict(usage.build.options).get("num_warps", 4)
    return f"{usage.registers} / {usage.shared / 1024:.0f} / {warps}"


def _short(value: Any) -> str:
    return str(getattr(value, "name", value))


if __name__ == "__main__":
    main()
