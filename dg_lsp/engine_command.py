"""`dg-lsp engine`: run the engine in this terminal, stop the running one, or show its state."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

from dg_lsp.client import EngineClient
from dg_lsp.engine_process import runtime_dir, server_command
from dg_lsp.settings import EngineSettings
from dg_lsp.terminal import CommandError


def run(options: argparse.Namespace) -> int:
    """Runs, stops or shows the engine of this user."""
    settings = EngineSettings(model=options.model, device=options.device)
    if not (options.stop or options.status):
        # Asked for by hand, it stays until it is told to go; later arguments win over these.
        forever = ["--idle-exit", "inf", "--idle-unload", "inf"]
        command = [*server_command(settings, runtime_dir()), *forever, *options.rest]
        sys.stdout.flush()
        os.execv(command[0], command)
    if options.rest:
        raise CommandError(f"unknown argument {options.rest[0]!r}; see `dg-lsp engine --help`")
    return _stop(settings) if options.stop else _status(settings)


def _stop(settings: EngineSettings) -> int:
    stopped = asyncio.run(EngineClient(settings).stop())
    sys.stdout.write("the engine has stopped\n" if stopped else "no engine runs\n")
    return 0


def _status(settings: EngineSettings) -> int:
    health = asyncio.run(EngineClient(settings).health())
    if health is None:
        sys.stderr.write("dg-lsp: no engine runs; the first completion starts one\n")
        return 1
    sys.stdout.write(json.dumps(health, indent=2) + "\n")
    return 0
