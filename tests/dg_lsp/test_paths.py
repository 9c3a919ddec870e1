import os

import pytest

from dg_lsp.paths import is_read_only, relative_path


@pytest.mark.parametrize(
    ("uri", "roots", "path"),
    [
        ("file:///home/me/project/src/a.py", ["file:///home/me/project"], "src/a.py"),
        ("file:///p/sub/a.py", ["file:///p", "file:///p/sub/"], "a.py"),
        ("file:///project2/a.py", ["file:///project"], "a.py"),
        ("file:///p/a%20b/%C3%A9.py", ["file:///p/a b"], "é.py"),
        ("file:///C%3A/p/a.py", ["file:///C:/p"], "a.py"),
        ("file:///a.py", [], "a.py"),
        ("file:///home/me/a.py", [""], "a.py"),
        ("untitled:Untitled-1", ["file:///p"], ""),
        ("file://[broken", ["file://[broken"], ""),
    ],
)
def test_paths_are_relative_to_the_innermost_folder_and_never_absolute(uri, roots, path):
    assert relative_path(uri, roots) == path


def test_a_file_is_read_only_if_it_is_there_and_may_not_be_written(tmp_path, monkeypatch):
    file = tmp_path / "a b.py"
    file.touch()
    assert not is_read_only(file.as_uri())
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    assert is_read_only(file.as_uri())
    assert not is_read_only((tmp_path / "new.py").as_uri())
    assert not is_read_only("untitled:" + str(file))
