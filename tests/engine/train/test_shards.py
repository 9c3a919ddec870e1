"""What is written comes back, in shards small enough to travel, in an order the seed fixes."""

import itertools
import json

import numpy as np
import pytest

from engine.checksum import sha256
from engine.errors import EngineError
from engine.train import shards
from engine.train.shards import Document, Origin


def documents(count=20, length=50):
    return [
        (Origin("p", f"p/m{i}.py", i + 1), [(i * length + j) % 60_000 for j in range(length)])
        for i in range(count)
    ]


def written(folder, count=20, vocab_size=49_152):
    paths = list(
        shards.write(documents(count), folder, "abc", vocab_size=vocab_size, shard_bytes=700)
    )
    rows = [{"file": path.name, "sha256": sha256(path)} for path in paths]
    (folder / shards.MANIFEST).write_text(json.dumps({"shards": rows}))
    return paths


def key(document):
    return document.origin, document.ids.tolist()


def test_documents_come_back_with_their_origin_and_boundaries(tmp_path):
    paths = written(tmp_path)
    assert [p.name for p in paths] == [f"abc-{i:04d}.npz" for i in range(len(paths))]
    assert [key(d) for p in paths for d in shards.read_shard(p)] == documents()


def test_shards_are_filled_up_to_the_size_asked(tmp_path):
    sizes = [sum(d.ids.nbytes for d in shards.read_shard(p)) for p in written(tmp_path)]
    assert sizes == [700, 700, 600]  # 20 documents of 100 bytes


def test_a_document_larger_than_a_shard_has_one_of_its_own(tmp_path):
    paths = list(shards.write(documents(2, 5000), tmp_path, "abc", vocab_size=9, shard_bytes=700))
    assert [len(shards.read_shard(p)) for p in paths] == [1, 1]


@pytest.mark.parametrize(("vocab_size", "kind"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_are_as_wide_as_the_vocabulary_needs(tmp_path, vocab_size, kind):
    path = written(tmp_path, vocab_size=vocab_size)[0]
    assert shards.read_shard(path)[0].ids.dtype == kind


def test_each_epoch_has_every_document_once_in_an_order_of_its_own(tmp_path):
    written(tmp_path)
    orders = [[key(d) for d in shards.iterate(tmp_path, *at)] for at in [(0, 0), (0, 1), (1, 0)]]
    assert all(sorted(order, key=str) == sorted(documents(), key=str) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] == [key(d) for d in shards.iterate(tmp_path, 0, 0)]


def test_the_same_documents_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_folder_without_a_finished_corpus_is_said(tmp_path):
    with pytest.raises(EngineError, match=r"no finished corpus in .*; run `python -m engine.train"):
        next(shards.iterate(tmp_path, 0, 0))


def test_a_damaged_shard_is_said(tmp_path):
    path = written(tmp_path, count=3)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"abc-0000.npz is missing or damaged; build"):
        list(shards.iterate(tmp_path, 0, 0))


def test_the_corpus_is_one_stream_with_separators_that_can_be_entered_anywhere(monkeypatch):
    def documents(folder, seed, epoch):
        for number in range(3):
            ids = np.full(5, 10 * epoch + number + 1, np.uint16)
            yield Document(Origin("package", f"{number}.py", 1), ids)

    monkeypatch.setattr("engine.train.shards.iterate", documents)
    windows = shards.windows("folder", 4, 0, seed=1)
    whole = list(itertools.islice(windows(0), 8))
    assert np.concatenate(whole).tolist() == [
        *(0, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 0, 3, 3, 3, 3, 3),
        *(0, 11, 11, 11, 11, 11, 0, 12, 12, 12, 12, 12, 0, 13),
    ]
    entered = list(itertools.islice(windows(3), 5))
    assert all(np.array_equal(a, b) for a, b in zip(entered, whole[3:], strict=True))


def test_files_that_are_held_out_are_in_no_window_to_learn_from(tmp_path):
    """All pieces of a file are on one side."""
    written(tmp_path, count=400)
    separator, length = 60_001, 51  # one document with its separator
    learnt = list(itertools.islice(shards.windows(tmp_path, length, separator, seed=3)(0), 800))
    kept = shards.held_out(tmp_path, length, separator, 400)
    firsts = [{int(window[1]) for window in some} for some in (learnt, kept)]
    assert firsts[0].isdisjoint(firsts[1])
    assert len(firsts[0] | firsts[1]) == 400 and 0 < len(firsts[1]) < 20
    assert len(shards.held_out(tmp_path, length, separator, 1)) == 1
    assert shards.is_held_out(Origin("p", "p/m1.py", 1)) == shards.is_held_out(
        Origin("p", "p/m1.py", 900)
    )


def test_a_corpus_with_nothing_to_learn_from_is_said(monkeypatch):
    monkeypatch.setattr("engine.train.shards.iterate", lambda folder, seed, epoch: iter(()))
    with pytest.raises(EngineError, match="folder has no text to learn from; build a larger"):
        next(shards.windows("folder", 4, 0, seed=1)(0))
