"""The source trees kept for the evaluation, fetched and unpacked: one folder a package.

    python -m bench.held_out --out DIR [--skip NAME...]

Python's are wheels through pip and JavaScript's tarballs through npm, at fixed versions and as both
are configured for the user; nothing in them is run. What is fetched is kept in DIR/.packages, so a
run that was broken off goes on. Then: `dg-lsp bench quality --tree DIR/* --out ...`. Knows nothing
of holes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tqdm import tqdm

from engine.errors import EngineError
from engine.train import wheels
from engine.train.packages import HELD_OUT
from engine.train.wheels import Package

NPM: Final = (
    Package("commander", "15.1.0", "MIT"),
    Package("express", "5.3.0", "MIT"),
    Package("lodash", "4.18.1", "MIT"),
)
_NPM_SAYS = re.compile(r"^npm (?:error|ERR!) (?!code\b)(?:\S+ )?(.+)", re.MULTILINE)
Fetch = Callable[[Package, Path], Path]


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
    sources: list[tuple[Package, Fetch]] = [(package, wheels.fetch) for package in HELD_OUT]
    sources += [(package, npm_tarball) for package in NPM]
    wanted = [(package, get) for package, get in sources if package.name not in skip]
    trees = []
    for package, get in tqdm(wanted, unit="package"):
        archive = get(package, out / ".packages")
        trees.append(unpack(archive, out / package.name))
    return trees


def npm_tarball(package: Package, cache: Path) -> Path:
    """The tarball of an npm package in `cache`, from there or by npm; whole or not there."""
    kept = cache / f"npm-{package.name}-{package.version}"
    if not kept.is_dir():
        part = cache / f".{kept.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _npm_pack(f"{package.name}@{package.version}", part)
        part.rename(kept)
    tarballs = list(kept.glob("*.tgz"))
    if len(tarballs) != 1:
        raise EngineError(f"{kept} holds {len(tarballs)} tarballs, not one; delete the folder")
    return tarballs[0]


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


def _npm_pack(requirement: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        names = " ".join(package.name for package in NPM)
        raise EngineError(
            f"npm is not installed, which {requirement} needs; install Node.js, or leave out the "
            f"JavaScript packages with --skip {names}"
        )
    line = [npm, "pack", "--ignore-scripts", "--pack-destination", str(folder), requirement]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = _NPM_SAYS.search(done.stderr)
        reason = said[1] if said else "no reason"
        raise EngineError(
            f"npm cannot fetch {requirement} ({reason}); check the network and npm's "
            "configuration and run it again to go on, or leave it out with --skip"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.held_out",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = sorted(package.name for package in (*HELD_OUT, *NPM))
    parser.add_argument("--out", type=Path, required=True, help="the folder for the trees")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", choices=names)
    return parser


if __name__ == "__main__":
    sys.exit(main())
