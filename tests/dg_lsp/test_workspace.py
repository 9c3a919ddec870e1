import os
import tracemalloc

import pytest

from dg_lsp.definitions import Definition
from dg_lsp.workspace import Index, Limits, crawl, is_ignored, read


def plant(root, **files):
    """Files below `root`; in their names __ stands for / and _py for .py."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root, **options):
    return [path for path, _ in crawl(root, **options)]


def named(*names):
    return tuple(Definition(name, f"def {name}():", 0, 1) for name in names)


def definition_of(number):
    text = f"def name_{number}(first, second):" + " " * 100
    return Definition(f"name_{number}", text, 1000 + number, 2000 + number)


def test_the_index_knows_where_a_name_is_defined():
    index = Index()
    index.put("b.py", named("one", "two"))
    index.put("a.py", named("one"))
    assert [found.path for found in index.lookup("one")] == ["a.py", "b.py"]
    assert "two" in index and "three" not in index and index.lookup("three") == []
    assert (len(index), index.files) == (3, 2)


def test_a_file_read_again_replaces_what_it_defined():
    index = Index()
    index.put("a.py", named("old", "kept"))
    index.put("a.py", named("kept", "new"))
    assert "old" not in index and "new" in index and len(index) == 2


def test_a_removed_folder_takes_its_files_along():
    index = Index()
    for path in ("a/b.py", "a/c/d.py", "ab.py"):
        index.put(path, named("name"))
    index.remove("a")
    assert [found.path for found in index.lookup("name")] == ["ab.py"]
    index.remove("nothing")
    assert len(index) == 1


def test_the_index_stays_within_its_limits():
    index = Index(Limits(files=3, index_bytes=3_000))
    for i in range(20):
        index.put(f"{i}.py", named(*(f"name_{i}_{n}" for n in range(4))))
        assert index.files <= 3 and index.bytes <= 3_000
    assert "name_19_0" in index and "name_0_0" not in index
    index.put("large.py", named(*(f"large_{n}" for n in range(50))))
    assert "large_0" in index and "large_49" not in index and index.bytes <= 3_000


def test_what_the_index_says_it_takes_is_about_what_it_takes():
    index = Index()
    tracemalloc.start()
    for i in range(100):
        index.put(f"{i}.py", tuple(map(definition_of, range(100 * i, 100 * i + 100))))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2 * index.bytes < 2 * Limits().index_bytes
    for i in range(100):
        index.remove(f"{i}.py")
    assert index.bytes == len(index) == index.files == 0


def test_the_walk_reads_source_files_and_says_what_they_define(tmp_path):
    plant(tmp_path, a_py="def one():\n    pass\n", src__b_py="class Two:\n    pass\n", c="x")
    every = dict(crawl(tmp_path))
    assert {path: [d.name for d in every[path]] for path in every} == {
        "a.py": ["one"],
        "src/b.py": ["Two"],
    }


def test_the_nearest_files_come_first(tmp_path):
    plant(tmp_path, a_py="", b__c_py="", b__d__e_py="", b__d__f_py="", z__y_py="")
    near = found(tmp_path, near=["b/d/e.py"])
    assert near == ["b/d/e.py", "b/d/f.py", "b/c.py", "a.py", "z/y.py"]


def test_ignored_files_are_left_out(tmp_path):
    plant(
        tmp_path,
        a_py="",
        build__b_py="",
        src__gen__c_py="",
        src__d_py="",
        src__e_py="",
        node_modules__f_py="",
        env__g_py="",
    )
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "h.py").write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / ".gitignore").write_text("build/\n*_d.py\nsrc/d.py\n# a comment\n")
    (tmp_path / "src" / ".gitignore").write_text("gen\n!d.py\n")
    assert found(tmp_path) == ["a.py", "src/d.py", "src/e.py"]
    assert found(tmp_path, near=["build/b.py", "src/gen/c.py"]) == ["src/d.py", "src/e.py", "a.py"]
    assert is_ignored(tmp_path, "build/x/y.py") and is_ignored(tmp_path, "src/gen/c.py")
    assert not is_ignored(tmp_path, "src/e.py")


def test_what_is_not_allowed_is_not_opened(tmp_path, monkeypatch):
    plant(tmp_path, a_py="", secret_py="")
    opened = []
    read_text = type(tmp_path).read_text

    def noting(self, *args, **kwargs):
        opened.append(self.name)
        return read_text(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "read_text", noting)
    assert found(tmp_path, allowed=lambda path: "secret" not in path) == ["a.py"]
    assert "secret.py" not in opened


def test_links_are_not_followed(tmp_path):
    plant(tmp_path, a__b_py="", a__c__d_py="")
    (tmp_path / "a" / "c" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "link.py").symlink_to(tmp_path / "a" / "b.py")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    assert found(tmp_path) == ["a/b.py", "a/c/d.py"]
    assert read(tmp_path, "link.py") is None


def test_unreadable_files_and_folders_are_passed_over(tmp_path, monkeypatch):
    plant(tmp_path, a_py="", b__c_py="", d_py="")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    os.mkfifo(tmp_path / "pipe.py")
    scandir = os.scandir

    def refusing(path):
        if path.name == "b":
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    read_text = type(tmp_path).read_text

    def refusing_text(self, *args, **kwargs):
        if self.name == "d.py":
            raise PermissionError(self)
        return read_text(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "read_text", refusing_text)
    assert found(tmp_path) == ["a.py"]


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        (Limits(files=3), 3),
        (Limits(entries=10), 9),  # the folder is one
        (Limits(bytes=35), 3),
        (Limits(seconds=0.5), 5),
        (Limits(file_bytes=9), 0),
    ],
)
def test_the_walk_stops_at_its_limits(tmp_path, limits, count):
    plant(tmp_path, **{f"f{i:02}_py": "x = 12345\n" for i in range(12)}, zz__a_py="x = 12345\n")
    (tmp_path / "a").mkdir()
    ticks = iter(range(1000))
    assert len(found(tmp_path, limits=limits, clock=lambda: next(ticks) / 20)) == count


def test_a_tree_of_very_many_files_is_not_walked_to_its_end(tmp_path, monkeypatch):
    """Without making them: each folder has two more, forever."""
    looked_at = []

    class Folder:
        def __init__(self, name):
            self.name = name

        def is_dir(self, follow_symlinks):
            assert not follow_symlinks
            return True

    def endless(folder):
        looked_at.append(folder)
        return [Folder("one"), Folder("two")]

    monkeypatch.setattr("dg_lsp.workspace._entries", endless)
    assert found(tmp_path, limits=Limits(entries=5000)) == []
    assert len(looked_at) == 2501


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    assert found(tmp_path / "nowhere") == []
    assert read(tmp_path, "nowhere.py") is None
    assert read(tmp_path, "a\0b.py") is None
    assert read(tmp_path, "notes.txt") is None
