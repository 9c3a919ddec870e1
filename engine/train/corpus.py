"""`python -m engine.train.corpus --out DIR`: the training corpus, from packages to shards of ids.

Fetch -> filter -> remove duplicates -> shuffle -> encode. Same list, options, interpreter and
tokenizer: same shards, byte for byte. A run that was killed goes on: wheels are kept, and shards
carry a fingerprint of all that decides what is in them. Knows nothing of training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checksum import sha256
from engine.errors import EngineError
from engine.pull import resolve_model
from engine.tokenizer import Tokenizer
from engine.train import leaks, selection, shards
from engine.train.npm_packages import NPM_HELD_OUT, NPM_PACKAGES
from engine.train.packages import HELD_OUT, PACKAGES
from engine.train.selection import Progress
from engine.train.sources import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What decides the corpus; `model` only lends its tokenizer."""

    out: Path
    tokens: int = 100_000_000
    seed: int = 0
    model: str = "smollm2-135m"
    packages: tuple[Package, ...] = (*PACKAGES, *NPM_PACKAGES)
    held_out: tuple[Package, ...] = (*HELD_OUT, *NPM_HELD_OUT)
    script_share: float = 0.25  # of the tokens that are JavaScript or TypeScript
    exclude: tuple[Path, ...] = ()
    standard_library: bool = True
    shard_bytes: int = shards.SHARD_BYTES


def build(options: Options, progress: Progress = lambda fraction, what: None) -> dict[str, Any]:
    """Makes the corpus whole in `options.out` and returns its manifest."""
    tokenizer_directory = resolve_model(options.model)
    tokenizer = Tokenizer.from_directory(tokenizer_directory)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / shards.MANIFEST).unlink(missing_ok=True)  # nothing is finished until it is
    forbidden = leaks.forbidden(options.exclude, leaks.humaneval())
    for package in options.held_out:
        leaks.forbid_files(forbidden, selection.archived(package, options.out))
    ledger = selection.Ledger()
    texts = list(selection.files(options.packages, options.out, options.seed, ledger, progress))
    if options.standard_library:
        texts += selection.library_files(options.seed, ledger)
    kept = selection.without_leaks(texts, forbidden, ledger, progress)
    texts = selection.without_copies(kept, ledger, progress)
    random.Random(options.seed).shuffle(texts)
    fingerprint = _fingerprint(options, sha256(tokenizer_directory / "tokenizer.json"), texts)
    written = _encode(texts, tokenizer, options, fingerprint, ledger, progress)
    manifest = {
        "fingerprint": fingerprint,
        "seed": options.seed,
        "tokenizer": options.model,
        "python": platform.python_version(),
        "tokens": sum(shard["tokens"] for shard in written),
        "documents": sum(shard["documents"] for shard in written),
        "languages": {name: dict(counts) for name, counts in ledger.languages.items()},
        "dropped": dict(sum((Counter(p["dropped"]) for p in ledger.packages.values()), Counter())),
        "documents_available": len(texts),
        "characters_available": sum(len(text.text) for text in texts),
        "shards": written,
        "excluded": ledger.excluded,
        "packages": ledger.packages,
        "dropped_examples": dict(ledger.examples),
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (options.out / shards.MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _fingerprint(options: Options, tokenizer: str, texts: Sequence[selection.Text]) -> str:
    digest = hashlib.sha256(
        f"{tokenizer} {options.tokens} {options.shard_bytes} {options.script_share}".encode()
    )
    for text in texts:
        digest.update(f"{text.package}\0{text.path}\0{text.line}\0{text.text}\0".encode())
    return digest.hexdigest()[:12]


def _encode(
    texts: Sequence[selection.Text], tokenizer: Tokenizer, options: Options, name: str,
    ledger: selection.Ledger, progress: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    """The shards, those that an earlier run finished taken as they are."""
    done = _finished(options.out, name)
    about = [_about(path, ledger) for path in done]
    have = {kind: Counter[str]() for kind in (True, False)}  # whether of scripts -> what is written
    for language, counts in ledger.languages.items():
        have[language != "python"].update(counts)
    left = {
        kind: iter([text for text in texts if text.is_script is kind][counts["documents"] :])
        for kind, counts in have.items()
    }

    def documents() -> Iterator[tuple[shards.Origin, list[int]]]:
        tokens = {kind: counts["tokens"] for kind, counts in have.items()}
        while (total := sum(tokens.values())) < options.tokens:
            progress(total / options.tokens, "encoding")
            kind = tokens[True] < options.script_share * total
            text = next(left[kind], None)
            if text is None:  # where one kind runs out, the other goes on
                kind = not kind
                text = next(left[kind], None)
            if text is None:
                return
            ids = tokenizer.encode(text.text)
            tokens[kind] += len(ids)
            yield shards.Origin(text.package, text.path, text.line, text.language), ids

    fresh = shards.write(
        documents(), options.out, name, vocab_size=tokenizer.vocab_size,
        shard_bytes=options.shard_bytes, first=len(done),
    )  # fmt: skip
    return about + [_about(path, ledger) for path in fresh]


def _finished(out: Path, name: str) -> list[Path]:
    """The shards of this very corpus; those of another one, and torn ones, are removed."""
    ours = [path for path in sorted(out.iterdir()) if shards.NAME.fullmatch(path.name)]
    for path in ours:
        if not path.match(f"{name}-*.npz"):
            path.unlink()
    return [path for path in ours if path.exists()]


def _about(path: Path, ledger: selection.Ledger) -> dict[str, Any]:
    documents = shards.read_shard(path)
    for document in documents:
        ledger.packages[document.origin.package]["tokens"] += len(document.ids)
        ledger.languages[document.origin.language].update(documents=1, tokens=len(document.ids))
    return {
        "file": path.name,
        "documents": len(documents),
        "tokens": sum(len(document.ids) for document in documents),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }


def listed(packages: Sequence[Package]) -> str:
    """The fixed list as `--list` shows it."""
    lines = [f"{package.requirement:40} {package.licence}" for package in packages]
    return "\n".join([*lines, f"{'the standard library of this Python':40} PSF-2.0"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints a summary, or one line about what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    every = (
        *PACKAGES[: given.packages],
        *NPM_PACKAGES[: 0 if given.no_npm else given.npm_packages],
    )
    if unknown := set(given.skip) - {package.name for package in (*PACKAGES, *NPM_PACKAGES)}:
        parser.error(f"--skip {min(unknown)}: not in the list; see --list")
    chosen = tuple(package for package in every if package.name not in given.skip)
    if given.list:
        sys.stdout.write(listed(chosen))
        return 0
    if given.out is None:
        parser.error("--out DIR is needed to build")
    options = Options(
        out=given.out, tokens=given.tokens, seed=given.seed, model=given.model,
        packages=chosen, held_out=HELD_OUT if given.no_npm else (*HELD_OUT, *NPM_HELD_OUT),
        script_share=given.script_share, exclude=tuple(given.exclude),
    )  # fmt: skip
    started = time.monotonic()
    try:
        manifest = build(options, _report)
    except (EngineError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted; run it again to go on" if interrupted else str(error)
        sys.stderr.write(f"\ncorpus: {reason}\n")
        return 130 if interrupted else 1
    size = sum(shard["bytes"] for shard in manifest["shards"])
    sys.stderr.write("\n")
    sys.stdout.write(
        f"{manifest['tokens']:,} tokens in {manifest['documents']:,} documents of "
        f"{len(manifest['packages'])} packages, {len(manifest['shards'])} shards, "
        f"{size / 1e6:.0f} MB, {time.monotonic() - started:.0f} s\n"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.train.corpus", description=__doc__)
    parser.add_argument("--out", type=Path, help="the folder to build in")
    parser.add_argument("--packages", type=_count, default=len(PACKAGES), metavar="N",
                        help="only the first N Python packages of the list")  # fmt: skip
    parser.add_argument("--npm-packages", type=_count, default=len(NPM_PACKAGES), metavar="N",
                        help="only the first N npm packages of the list")  # fmt: skip
    parser.add_argument("--no-npm", action="store_true",
                        help="Python alone: no JavaScript or TypeScript, and npm is not needed")  # fmt: skip
    parser.add_argument("--script-share", type=_share, default=0.25, metavar="SHARE",
                        help="of the tokens that are JavaScript or TypeScript (default 0.25)")  # fmt: skip
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these out")
    parser.add_argument("--tokens", type=_count, default=100_000_000, help="at most, such as 100M")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m", help="whose tokenizer encodes")
    parser.add_argument("--exclude", nargs="+", type=Path, default=[], metavar="PATH",
                        help="more evaluation sets than HumanEval: *.jsonl[.gz] files or source trees")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the packages and licences")
    return parser


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1; write 0.25")
    return number


def _count(text: str) -> int:
    scale = {"K": 1_000, "M": 1_000_000, "G": 1_000_000_000}.get(text[-1:].upper(), 1)
    try:
        number = int(text if scale == 1 else text[:-1]) * scale
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count above 0; write 5000 or 100M")
    return number


def _report(fraction: float, what: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    now = f"{what}: {fraction:4.0%}"
    if now != _shown[0]:
        sys.stderr.write(f"{now:60}{end}")
        sys.stderr.flush()
        _shown[0] = now


_shown = [""]


if __name__ == "__main__":
    sys.exit(main())
