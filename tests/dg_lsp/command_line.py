"""The command `dg-lsp`, run to its end for a test."""

import json
import os
import subprocess
import sys

from dg_lsp import cli
from tests.running import SCRIPTED

RUN = f"from dg_lsp import cli, engine_process\nengine_process.COMMAND = {SCRIPTED!r}\ncli.main()\n"


def dg_lsp(home, *arguments, script=RUN, **environment):
    """Runs the command to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "DG_LSP_RUNTIME_DIR": str(home / "run"), **environment},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )


def refused(capsys, *arguments):
    """What the command says on stderr when it is used wrongly, run in this process."""
    try:
        code = cli.run(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err.removesuffix("\n")


def complete_json(home, *arguments):
    ended = dg_lsp(home, "complete", "--json", "--model", "scripted", *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
