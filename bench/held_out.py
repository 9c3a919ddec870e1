"""The source trees kept for the evaluation, fetched and unpacked: one folder a package.

    python -m bench.held_out --out DIR [--skip NAME...]

Python's are wheels through pip and JavaScript's tarballs through npm, at fixed versions and as both
are configured for the user; nothing in them is run. What is fetched is kept in DIR/.packages, so a
run that was broken off goes on. Then: `dg-lsp bench quality --tree DIR/* --out ...`. Knows nothing
of holes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine.errors import EngineError
from engine.train import tarballs, wheels
from engine.train.npm_packages import NPM_HELD_OUT
from engine.train.packages import HELD_OUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what is missing, unpacks everything, and prints the folders."""
    options = _parser().parse_args(arguments)
    try:
        for tree in fetch(options.out, frozenset(options.skip)):
            print(tree)
    except EngineError as error:
        sys.stderr.write(f"bench.held_out: {error}\n")
        return 1
    return 0


def fetch(out: Path, skip: frozenset[str] = frozenset()) -> list[Path]:
    """The folders of all packages but those to `skip`."""
    wanted = [p for p in (*HELD_OUT, *NPM_HELD_OUT) if p.name not in skip]
    trees = []
    for package in tqdm(wanted, unit="package"):
        get = wheels.fetch if package.client == "pip" else tarballs.fetch
        archive = get(package, out / ".packages")
        trees.append(unpack(archive, out / package.name))
    return trees


def unpack(archive: Path, tree: Path) -> Path:
    """The contents of a wheel or an npm tarball as the folder `tree`, in place of what it was."""
    part = tree.with_name(f".{tree.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    top = part
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(part)
        else:
            with tarfile.open(archive, "r:gz") as tarball:
                tarball.extractall(part, filter="data")
            (top,) = part.iterdir()  # npm puts everything into one folder
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise EngineError(f"{archive} cannot be unpacked ({error}); delete it") from None
    shutil.rmtree(tree, ignore_errors=True)
    top.rename(tree)
    shutil.rmtree(part, ignore_errors=True)
    return tree


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.held_out",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = sorted(package.name for package in (*HELD_OUT, *NPM_HELD_OUT))
    parser.add_argument("--out", type=Path, required=True, help="the folder for the trees")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", choices=names)
    return parser


if __name__ == "__main__":
    sys.exit(main())
