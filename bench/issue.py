"""What the inner loop of a compiled product issues, beside the time its weights take to arrive.

    python -m bench.issue PATTERN [--architecture 90] [--rows 64]

Read from the machine code of those programs whose case and label match, for cycles of an H200; nothing is
measured: where issuing takes as long as reading, or longer, reading is not what bounds a kernel.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter

from bench.compile_kernels import Build, builds, compiled, disassembled

# H200: bytes a processor gets in a cycle, of 4.3 TB/s as copies reach, 132 processors, 1.755 GHz.
BYTES_A_CYCLE = 4.3e12 / 132 / 1.755e9
# Half a warp in a cycle; all others are taken as a whole warp, which some are not.
_HALF_RATE = ("LOP3", "PRMT", "SHF", "IADD3", "VIADD", "ISETP", "SEL", "LEA", "F2FP", "PLOP3")
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(\w+)([^;]*);")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern")
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    print(
        "| kernel | issued | half-rate pipe | bytes of weights | instructions |\n|---|---|---|---|---|"
    )
    for build in builds(options.architecture, (options.rows,)):
        if not re.search(options.pattern, f"{build.case} {build.label}"):
            continue
        found = inner_loop(disassembled(compiled(build)))
        print(
            f"| `{build.label}` | {found.total()} | {half_rate(found)} | {arrival(build):.0f} | ",
            end="",
        )
        print(
            ", ".join(f"{name} {count}" for name, count in found.most_common(12)), "|", flush=True
        )


def inner_loop(assembly: str) -> Counter[str]:
    """How often each instruction stands in the smallest loop with matrix products; a warp's."""
    lines = [(int(at, 16), name, rest) for at, name, rest in _LINE.findall(assembly)]
    loops = []
    for end, name, rest in lines:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name == "BRA" and target and (start := int(target[1], 16)) < end:
            loops.append(Counter(other for at, other, _ in lines if start <= at <= end))
    multiplying = [loop for loop in loops if any("MMA" in name for name in loop)]
    assert multiplying, "no loop has a matrix product"
    return min(multiplying, key=Counter.total)


def half_rate(found: Counter[str]) -> int:
    """Cycles that the pipe of integers and logic takes for them, of each scheduler's one warp."""
    return 2 * sum(found[name] for name in _HALF_RATE)


def arrival(build: Build) -> float:
    """Cycles in which the weights of one turn of the loop reach the processor."""
    sizes = dict(build.constants)
    bits = 8 * {"*bf16": 2, "*fp8e4nv": 1}.get(dict(build.signature)["codes"], 0)
    each = bits or 4 + 8 / sizes["GROUP"]  # scales of groups in FP8
    return float(sizes["BLOCK_N"] * sizes["BLOCK_K"] * each / 8 / BYTES_A_CYCLE)


if __name__ == "__main__":
    main()
