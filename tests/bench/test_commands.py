"""Every benchmark can say what it is and what it takes."""

from importlib import import_module
from pathlib import Path

import pytest

import bench

FOLDER = Path(bench.__file__).parent
COMMANDS = sorted(
    path.stem for path in FOLDER.glob("*.py") if "ArgumentParser(" in path.read_text()
)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_can_be_printed(command, monkeypatch, capsys):
    main = import_module(f"bench.{command}").main
    monkeypatch.setattr("sys.argv", [command, "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "--" in capsys.readouterr().out
