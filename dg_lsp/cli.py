"""The command `dg-lsp`: its arguments, exit codes and one-line errors.

Each subcommand imports what it needs when it runs, so that `dg-lsp --help` is instant and the
language server pays for nothing it does not use. What the subcommands do is elsewhere.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dg_lsp import __version__
from dg_lsp.settings import EngineSettings

_DESCRIPTION = "A local, offline coding assistant: language server, engine and helpers."
_BENCHMARKS = ("quality", "infill", "server", "replay")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one subcommand and exits: 0 done, 1 failed, 2 used wrongly, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of `dg-lsp ARGUMENTS`; what went wrong is one line on stderr."""
    from dg_lsp.engine_process import EngineUnavailable
    from dg_lsp.terminal import CommandError
    from engine.request import RequestError

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character of the user's code must not end the command.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    parser = _parser()
    if not arguments and sys.stdin.isatty():
        parser.print_help()
        return 0
    options, rest = parser.parse_known_args(arguments or ["serve"])
    options.rest = rest
    try:
        if options.rest and not options.passes_on:
            raise CommandError(
                f"unknown argument {options.rest[0]!r}; see `dg-lsp {options.command} --help`"
            )
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except (CommandError, RequestError) as error:
        sys.stderr.write(f"dg-lsp: {error}\n")
        return 2
    except EngineUnavailable as error:
        sys.stderr.write(f"dg-lsp: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _serve(_: argparse.Namespace) -> int:
    from dg_lsp.lsp import server

    server.main()
    return 0


def _complete(options: argparse.Namespace) -> int:
    from dg_lsp import complete

    return complete.run(options)


def _engine(options: argparse.Namespace) -> int:
    from dg_lsp import engine_command

    return engine_command.run(options)


def _doctor(options: argparse.Namespace) -> int:
    from dg_lsp import doctor

    return doctor.run(options)


def _nvim_path(_: argparse.Namespace) -> int:
    from pathlib import Path

    package = Path(__file__).parent
    installed, checkout = package / "nvim-client", package.parent / "nvim-client"
    sys.stdout.write(f"{installed if installed.is_dir() else checkout}\n")
    return 0


def _settings_schema(options: argparse.Namespace) -> int:
    from dg_lsp import schema

    return schema.run(options)


def _stats(options: argparse.Namespace) -> int:
    from dg_lsp import stats_report

    return stats_report.run(options)


def _pull(options: argparse.Namespace) -> NoReturn:
    cure = "install the engine extra: pip install 'dg-lsp[engine]'"
    _need(("numpy", "gguf", "safetensors", "tokenizers", "torch"), cure)
    _go_on_as("engine.pull", ["--default", EngineSettings().model, *options.rest])


def _quantize(options: argparse.Namespace) -> NoReturn:
    cure = "install the engine extra: pip install 'dg-lsp[engine]'"
    _need(("numpy", "safetensors", "torch"), cure)
    _go_on_as("engine.quantize", options.rest)


def _bench(options: argparse.Namespace) -> NoReturn:
    from dg_lsp.terminal import CommandError

    if options.which is None:
        raise CommandError(f"say which: `dg-lsp bench {'|'.join(_BENCHMARKS)} [--help]`")
    cure = "benchmarks run from a checkout of the source: pip install -e '.[dev]' there"
    _need(("bench", "psutil", "rapidfuzz", "tqdm"), cure)
    _go_on_as(f"bench.{options.which}", options.rest)


def _need(packages: Sequence[str], cure: str) -> None:
    from importlib.util import find_spec

    from dg_lsp.engine_process import EngineUnavailable

    for package in packages:
        if find_spec(package) is None:
            raise EngineUnavailable(f"{package} is not installed: {cure}")


def _go_on_as(module: str, arguments: Sequence[str]) -> NoReturn:
    """This process becomes that program: signals and the exit code are its own."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


class _Parser(argparse.ArgumentParser):
    """Errors are one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"dg-lsp: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dg-lsp", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"dg-lsp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str, passes_on: bool = False
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, add_help=not passes_on, allow_abbrev=False
        )
        command.set_defaults(run=run, passes_on=passes_on)
        return command

    add("serve", _serve, "run the language server on stdin and stdout (the default for editors)")
    _complete_arguments(add("complete", _complete, "fill the hole at FILE:LINE:COL and print it"))
    _engine_arguments(
        add("engine", _engine, "run the engine here, or stop or show the running one")
    )
    doctor = add("doctor", _doctor, "tell what would run and why, and what is missing")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--model", default=EngineSettings().model, help="a name or a directory")
    add(
        "pull",
        _pull,
        "fetch a model, by default the one used by default (`dg-lsp pull --help`)",
        passes_on=True,
    )
    stats = add("stats", _stats, "show what was completed so far: local figures, never sent")
    stats.add_argument("--json", action="store_true", help="print one JSON object")
    stats.add_argument("--delete", action="store_true", help="delete them")
    add("nvim-path", _nvim_path, "print where the Neovim plugin lies, for its 'runtimepath'")
    settings = add("settings-schema", _settings_schema, "print the JSON schema of all settings")
    settings.add_argument("--markdown", action="store_true", help="print a table for people")
    add(
        "quantize",
        _quantize,
        "write a model in fewer bits (`dg-lsp quantize --help`)",
        passes_on=True,
    )
    bench = add("bench", _bench, "measure quality and speed, in a checkout", passes_on=True)
    bench.add_argument("which", choices=_BENCHMARKS, nargs="?")
    return parser


def _complete_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "place",
        metavar="FILE:LINE:COL",
        help="counted from 1; without COL, the end of the line; "
        "-[LINE:]COL behind it takes the text up to there out first",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    _model_arguments(command)
    command.add_argument("--max-tokens", type=int, default=64, metavar="N")
    command.add_argument("--deadline-ms", type=float, metavar="MS", help="answer by then")
    command.add_argument("--drafts", action="store_true", help="show the drafts on stderr")
    length = command.add_mutually_exclusive_group()
    length.add_argument(
        "--line", dest="single_line", action="store_true", default=None, help="at most one line"
    )
    length.add_argument("--block", dest="single_line", action="store_false", help="many lines")


def _engine_arguments(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group()
    what.add_argument("--foreground", action="store_true", help="run it here (the default)")
    what.add_argument("--stop", action="store_true", help="stop the running engine")
    what.add_argument("--status", action="store_true", help="print what the running one says")
    _model_arguments(command)
    command.set_defaults(passes_on=True)
    command.epilog = "Other arguments go to the engine: see `python -m engine.server --help`."


def _model_arguments(command: argparse.ArgumentParser) -> None:
    default = EngineSettings()
    command.add_argument("--model", default=default.model, help="a known name or a directory")
    command.add_argument("--device", default=default.device, choices=["auto", "cpu", "cuda"])


if __name__ == "__main__":
    main()
