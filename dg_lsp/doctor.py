"""`dg-lsp doctor`: what would run here and why, and what is missing.

Facts first (`gather`, plain JSON), then the judgement (`judge`), then the printing. Torch is
looked at by a process of its own, so that this one stays without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dg_lsp import __version__
from dg_lsp.client import EngineClient, EngineUnavailable
from dg_lsp.engine_process import model_argument, runtime_dir
from dg_lsp.settings import EngineSettings
from dg_lsp.stats import Statistics

Facts = dict[str, Any]
_PROBE_TIMEOUT_S = 120
_LOW_DISK_BYTES = 500_000_000
_INLINE_COMPLETION_IN_NEOVIM = (0, 12)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a completion works if no finding is `missing`."""

    level: Literal["ok", "note", "missing"]
    subject: str
    text: str


def run(options: argparse.Namespace) -> int:
    """Prints the report; 0 when a completion would work, else 1."""
    facts = gather(options.model)
    findings = judge(facts)
    works = all(finding.level != "missing" for finding in findings)
    if options.json:
        sys.stdout.write(json.dumps({**facts, "works": works}) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.level:8}{finding.subject:13}{finding.text}\n")
        sys.stdout.write(
            "\na completion would work\n"
            if works
            else "\na completion would not work: see the lines marked 'missing'\n"
        )
    return 0 if works else 1


def gather(model: str) -> Facts:
    """All that can be found out without changing anything, as JSON values."""
    settings, book = EngineSettings(model=model), Statistics()
    try:
        health, engine_error = asyncio.run(EngineClient(settings).health()), ""
    except EngineUnavailable as error:
        health, engine_error = None, str(error)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "free_memory_bytes": _free_memory(),
        "free_disk_bytes": shutil.disk_usage(Path.home().anchor or "/").free,
        "asked_model": model,
        **_probe(model_argument(model)),
        "runtime_dir": str(runtime_dir()),
        "engine": health,
        "engine_error": engine_error,
        "statistics": {"path": str(book.path), "lines": len(book.read())},
        "editors": {name: _version(name) for name in ("nvim", "code", "codium")},
    }


def judge(facts: Facts) -> list[Finding]:
    """The facts in sentences, worst consequences included."""
    return [
        Finding(
            "ok",
            "dg-lsp",
            f"{facts['version']}, Python {facts['python']} ({facts['executable']}), "
            f"{facts['platform']}",
        ),
        *_judge_torch(facts),
        *_judge_model(facts),
        *_judge_memory(facts),
        *_judge_plans(facts),
        *_judge_disk(facts),
        _judge_engine(facts),
        _judge_statistics(facts),
        *(_judge_editor(name, version) for name, version in facts["editors"].items()),
    ]


def _judge_torch(facts: Facts) -> list[Finding]:
    if facts["probe_error"]:
        return [Finding("missing", "torch", facts["probe_error"])]
    if facts["missing"]:
        names = ", ".join(facts["missing"])
        text = f"{names} not installed; install the engine extra: pip install 'dg-lsp[engine]'"
        return [Finding("missing", "torch", text)]
    torch = facts["torch"]
    devices = [
        f"{device['name']} with {_gb(device['free_bytes'])} of {_gb(device['total_bytes'])} free"
        for device in torch["devices"]
    ]
    where = "; ".join(devices) or f"no CUDA device, so it runs on {facts['cpus']} CPU cores"
    return [Finding("ok", "torch", f"{torch['version']}: {where}")]


def _judge_model(facts: Facts) -> list[Finding]:
    model = facts["model"]
    if model is None:
        error = facts["model_error"] or "not looked for, since the engine cannot run"
        return [Finding("missing", "model", f"{facts['asked_model']}: {error}")]
    count = f"{model['parameters'] / 1e6:.0f} M parameters, " if model["parameters"] else ""
    size = f"{model['disk_bytes'] / 1e6:.0f} MB"
    text = f"{facts['asked_model']} ({model['family']}, {count}{size}) in {model['path']}"
    training = (
        "trained to infill: fills holes with both sides in view"
        if model["trained_for_diffusion"]
        else "not trained for infilling: it continues the text before the cursor, and what "
        "follows only tells it where to stop"
    )
    return [Finding("ok", "model", text), Finding("note", "model", training)]


def _judge_memory(facts: Facts) -> list[Finding]:
    need = (facts["model"] or {}).get("need_bytes")
    if need is None or facts["torch"] is None:
        return []
    if facts["engine"] is not None:
        return []  # it has its memory already
    devices, free = facts["torch"]["devices"], facts["free_memory_bytes"]
    subject = "GPU memory" if devices else "memory"
    if devices:
        free = max(device["free_bytes"] for device in devices)
    if free is None:
        return [Finding("note", subject, f"about {_gb(need)} needed; free is unknown")]
    text = f"about {_gb(need)} needed, {_gb(free)} free"
    if need <= free:
        return [Finding("ok", subject, text)]
    advice = "close other programs or set a smaller model"
    return [Finding("missing", subject, f"{text}: {advice}")]


def _judge_plans(facts: Facts) -> list[Finding]:
    """The engine's own words on what of the large model fits where."""
    plans = facts["plans"]
    if plans is None:
        return []
    what = f"memory for {plans['model']} in each precision, by what is free on the GPU"
    cards = [(f"{size:g} GB", text) for size, text in plans["cards"]]
    return [Finding("note", "plan", what), *_notes(cards), *_notes(plans["here"])]


def _notes(pairs: list[tuple[str, str]]) -> list[Finding]:
    return [Finding("note", "", f"{name}: {text}") for name, text in pairs]


def _judge_disk(facts: Facts) -> list[Finding]:
    disk = facts["free_disk_bytes"]
    if disk >= _LOW_DISK_BYTES:
        return []
    text = f"{_gb(disk)} free: too little to fetch a model; free some space"
    return [Finding("note", "disk", text)]


def _judge_engine(facts: Facts) -> Finding:
    engine, directory = facts["engine"], facts["runtime_dir"]
    if facts["engine_error"]:
        return Finding("missing", "engine", facts["engine_error"])
    if engine is None:
        text = f"not running; the first completion starts it (in {directory})"
        return Finding("ok", "engine", text)
    if engine["status"] == "failed":
        return Finding("missing", "engine", engine["message"])
    if "pid" not in engine:  # it listens, but was too busy to answer
        return Finding("note", "engine", f"{engine['message']} (in {directory})")
    return Finding(
        "ok",
        "engine",
        f"{engine['status']} with {engine['model']}, pid {engine['pid']}, "
        f"{engine['uptime_s']:.0f} s, {_gb(engine['rss_bytes'])} (in {directory})",
    )


def _judge_statistics(facts: Facts) -> Finding:
    book = facts["statistics"]
    text = f"{book['lines']} lines, never sent, in {book['path']}; `dg-lsp stats` shows them"
    return Finding("note", "statistics", text)


def _judge_editor(name: str, version: str | None) -> Finding:
    if version is None:
        return Finding("note", name, "not found on PATH")
    if name != "nvim":
        text = f"{version}: needs an extension that runs `dg-lsp serve`"
        return Finding("ok", name, text)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= _INLINE_COMPLETION_IN_NEOVIM:
        hint = "vim.lsp.start({cmd = {'dg-lsp'}}), then vim.lsp.inline_completion.enable()"
        return Finding("ok", name, f"{version}: {hint}")
    return Finding("note", name, f"{version}: inline completion is built in from 0.12 on")


def _probe(model: str) -> Facts:
    """What the engine would find, asked of a process that may import torch."""
    nothing: Facts = {"missing": [], "torch": None, "model": None, "model_error": "", "plans": None}
    command = [sys.executable, "-P", "-m", "engine.probe", "--model", model]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S)
        if ended.returncode == 0:
            return {**nothing, **json.loads(ended.stdout), "probe_error": ""}
        words = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        reason = words[-1]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    advice = "install the engine extra anew: pip install 'dg-lsp[engine]'"
    return {**nothing, "probe_error": f"cannot be used: {reason}; {advice}"}


def _free_memory() -> int | None:
    """What the system could give a new process; None where it does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _version(program: str) -> str | None:
    """The version an editor on PATH reports; None if it is not there."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        ended = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    found = re.search(r"\d+\.\d+(\.\d+)?", ended.stdout)
    return found.group() if found else "unknown version"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
