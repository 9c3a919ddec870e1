"""Which files of which packages become documents, and an account of all that do not.

Packages whose licence is not permissive are left out whole; files are filtered, kept within their
package's share, and cleared of duplicates and of what the evaluation uses. Knows no tokens.
"""

from __future__ import annotations

import platform
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.checksum import sha256
from engine.train import dedup, filters, tarballs, wheels
from engine.train.languages import SCRIPT_ENDINGS, language_of
from engine.train.sources import Archives, Client, Package, SourceFile, refusal

TEST_SHARE = 0.2  # of the test files is kept: they are many, long and alike
PACKAGE_CHARS: dict[Client, int] = {"pip": 10_000_000, "npm": 5_000_000}  # so that none dominates
_ARCHIVES: dict[Client, Archives] = {"pip": wheels, "npm": tarballs}

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Text:
    """One file, or a piece of it from `line` on (counted from 1)."""

    package: str
    path: str
    text: str
    line: int = 1

    @property
    def language(self) -> str:
        """As editors call it."""
        language = language_of(self.path)
        return language.name if language else ""

    @property
    def is_script(self) -> bool:
        """Whether it is JavaScript or TypeScript."""
        return self.path.endswith(SCRIPT_ENDINGS)


@dataclass(slots=True)
class Ledger:
    """What the manifest will say: packages, languages, and files dropped by reason."""

    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    languages: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    excluded: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def drop(self, package: str, path: str, reason: str) -> None:
        """Counts one file, and remembers some of each reason for the reader's eye."""
        self.packages[package]["dropped"][reason] += 1
        if len(known := self.examples[reason]) < 20:
            known.append(f"{package}/{path}")


def archived(package: Package, folder: Path) -> Iterator[SourceFile]:
    """All source files of a package, fetched into `folder`; nobody judges them."""
    archives = _ARCHIVES[package.client]
    return archives.files(package.name, archives.fetch(package, folder / archives.FOLDER))


def files(
    packages: Sequence[Package], folder: Path, seed: int, ledger: Ledger, progress: Progress
) -> Iterator[Text]:
    """The files worth keeping of every package whose licence allows it."""
    for number, package in enumerate(packages):
        progress(number / len(packages), "fetching and filtering packages")
        archives = _ARCHIVES[package.client]
        archive = archives.fetch(package, folder / archives.FOLDER)
        licence = archives.licence(archive)
        if reason := refusal(licence):
            ledger.excluded[package.requirement] = f"{reason}: {licence[:80]}"
            continue
        about = {"version": package.version, "licence": licence[:200], "sha256": sha256(archive)}
        found = archives.files(package.name, archive)
        yield from _judged(package.name, found, about, PACKAGE_CHARS[package.client], seed, ledger)


def library_files(seed: int, ledger: Ledger) -> Iterator[Text]:
    """The files worth keeping of the standard library."""
    about = {"version": platform.python_version(), "licence": "PSF-2.0"}
    room = PACKAGE_CHARS["pip"]
    yield from _judged("python", wheels.standard_library(), about, room, seed, ledger)


def _judged(
    package: str, files: Iterable[SourceFile], about: dict[str, str], room: int, seed: int,
    ledger: Ledger,
) -> Iterator[Text]:  # fmt: skip
    ledger.packages[package] = {**about, "files": 0, "tokens": 0, "dropped": Counter()}
    draw = random.Random(f"{seed} {package}")
    kept: list[Text] = []
    for file in files:
        ledger.packages[package]["files"] += 1
        unlucky = draw.random() >= TEST_SHARE  # drawn for each file, so that one changes no other
        text, reason = filters.judge(file.path, file.data)
        reason = reason or ("compiled" if file.compiled else "")
        if not reason and filters.is_test(file.path) and unlucky:
            reason = "test beyond the share"
        if reason:
            ledger.drop(package, file.path, reason)
        else:
            kept.append(Text(package, file.path, text))
    draw.shuffle(kept)
    for item in sorted(kept, key=lambda item: filters.is_test(item.path)):  # tests yield
        room -= len(item.text)
        if room >= 0:
            yield item
        else:
            ledger.drop(package, item.path, "package beyond its share")


def without_leaks(
    texts: list[Text], forbidden: dedup.Forbidden, ledger: Ledger, progress: Progress
) -> list[Text]:
    """The texts that share nothing with an evaluation set."""
    kept = []
    for number, text in enumerate(texts):
        progress(number / len(texts), "looking for the evaluation sets")
        if forbidden.touches(text.text):
            ledger.drop(text.package, text.path, "in an evaluation set")
        else:
            kept.append(text)
    return kept


def without_copies(texts: list[Text], ledger: Ledger, progress: Progress) -> list[Text]:
    """The texts that are no copies of an earlier one, cut where they share lines with one."""
    say = "removing duplicates"
    verdicts = dedup.near_or_exact([t.text for t in texts], lambda f: progress(f, say))
    kept = []
    for text, reason in zip(texts, verdicts, strict=True):
        if reason:
            ledger.drop(text.package, text.path, reason)
        else:
            kept.append(text)
    result = []
    for text, ranges in zip(kept, dedup.pieces([t.text for t in kept]), strict=True):
        if not ranges:
            ledger.drop(text.package, text.path, "copied lines")
        lines = text.text.split("\n")
        for start, end in ranges:
            piece = "\n".join(lines[start:end])
            result.append(Text(text.package, text.path, piece, start + 1))
    return result
