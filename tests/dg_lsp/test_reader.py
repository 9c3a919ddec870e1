"""The reading thread: what it reads comes out of a queue, so nothing here waits on a clock."""

import queue
import threading

import pytest

from dg_lsp import reader as reading
from dg_lsp.reader import Reader


@pytest.fixture
def start():
    """Starts readers that put into a queue, and ends them."""
    readers = []

    def start(**options):
        out = queue.Queue()
        reader = Reader(lambda folder, path, found: out.put((path, found)), quiet_s=0, **options)
        readers.append(reader)
        return reader, lambda: out.get(timeout=30)

    yield start
    for reader in readers:
        reader.close()
        reader._thread.join(30)
        assert not reader._thread.is_alive()


def names(found):
    return [definition.name for definition in found]


def test_a_folder_is_read_nearest_first(tmp_path, start):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.py").write_text("def one(): ...\n")
    (tmp_path / "b" / "c.py").write_text("def two(): ...\n")
    reader, get = start()
    reader.read_all(tmp_path, "b/x.py")
    assert [(path, names(found)) for path, found in (get(), get())] == [
        ("b/c.py", ["two"]),
        ("a.py", ["one"]),
    ]


def test_a_changed_file_is_read_again_and_one_that_is_gone_is_said_to_be(tmp_path, start):
    (tmp_path / "a.py").write_text("def one(): ...\n")
    reader, get = start()
    reader.read(tmp_path, "a.py")
    assert names(get()[1]) == ["one"]
    reader.read(tmp_path, "gone.py")
    assert get() == ("gone.py", None)


def test_ignored_and_excluded_files_count_as_gone(tmp_path, start):
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text("def one(): ...\n")
    (tmp_path / ".gitignore").write_text("a.py\n")
    reader, get = start(allowed=lambda folder, path: path != "b.py")
    for name in ("a.py", "b.py"):
        reader.read(tmp_path, name)
        assert get() == (name, None)
    reader.read_all(tmp_path, "")
    assert get()[0] == "c.py"


def test_while_somebody_types_nothing_is_read(tmp_path):
    now, waits, go_on = [100.0], queue.Queue(), threading.Semaphore(0)

    class Waits(threading.Event):
        def wait(self, timeout=None):
            waits.put(timeout)
            go_on.acquire()
            return False

    (tmp_path / "a.py").write_text("")
    out = queue.Queue()
    reader = Reader(lambda folder, path, found: out.put(path), quiet_s=2, clock=lambda: now[0])
    reader._closed = Waits()
    reader.typed()
    reader.read(tmp_path, "a.py")
    assert waits.get(timeout=30) == 2
    now[0] += 1.5
    reader.typed()
    now[0] += 1.5
    go_on.release()
    assert waits.get(timeout=30) == 0.5 and out.empty()
    now[0] += 1
    go_on.release()
    assert out.get(timeout=30) == "a.py"
    reader.close()


def test_a_closed_reader_reads_no_further(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.py").write_text("")
    seen = []

    def put(folder, path, found):
        seen.append(path)
        reader.close()

    reader = Reader(put, quiet_s=0)
    reader.read_all(tmp_path, "")
    reader._thread.join(30)
    assert not reader._thread.is_alive() and seen == ["0.py"]


def test_more_changes_than_can_wait_are_dropped(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "dg_lsp")
    monkeypatch.setattr(reading, "_MOST_WAITING", 3)
    stuck = threading.Event()
    reader = Reader(lambda folder, path, found: stuck.wait(30), quiet_s=0)
    for _ in range(9):
        reader.read(tmp_path, "a.py")
    assert "too many files" in caplog.text
    reader.close()
    stuck.set()
    reader._thread.join(30)
    assert not reader._thread.is_alive()
