import random

from dg_lsp.chunks import Chunk, Ring, around, similarity, tokens


def chunk(seed, path="a.py", line=0):
    rng = random.Random(seed)
    return Chunk(path, " ".join(f"name_{rng.randrange(10**9)}" for _ in range(50)), line)


def settled(*chunks):
    ring = Ring()
    for each in chunks:
        ring.add(each)
    ring.settle()
    return ring


def test_chunks_wait_until_the_ring_settles():
    ring = Ring()
    ring.add(chunk(1))
    assert ring.chunks == ()
    assert ring.settle() and ring.chunks == (chunk(1),)
    assert not ring.settle()


def test_the_oldest_of_seventeen_goes_and_the_others_keep_their_order():
    chunks = [chunk(seed) for seed in range(17)]
    assert settled(*chunks).chunks == tuple(chunks[1:])


def test_what_comes_again_changes_nothing():
    ring = settled(chunk(1), chunk(2))
    ring.add(chunk(1))
    assert not ring.settle() and ring.chunks == (chunk(1), chunk(2))


def test_of_chunks_that_are_alike_the_newer_stays():
    old = chunk(1)
    new = Chunk("a.py", old.text + " one_more", 3)
    assert settled(old, chunk(2), new).chunks == (chunk(2), new)


def test_blank_chunks_are_none():
    assert settled(Chunk("a.py", "\n \n")).chunks == ()


def test_a_forgotten_file_is_gone_from_what_waits_too():
    ring = settled(chunk(1), chunk(2, "b.py"))
    ring.add(chunk(3))
    ring.forget("a.py")
    ring.settle()
    assert ring.chunks == (chunk(2, "b.py"),)


def test_similarity_is_the_share_of_common_tokens():
    assert similarity(tokens("a b c"), tokens("c b a")) == 1
    assert similarity(tokens("a b"), tokens("b c")) == 1 / 3
    assert similarity(tokens("a"), tokens("b")) == similarity(tokens(""), tokens("")) == 0
    assert tokens("f(a1) += é") == {"f", "(", "a1", ")", "+", "=", "é"}


def test_lines_around_one_stay_within_the_text():
    lines = [str(i) for i in range(100)]
    for line in (0, 5, 50, 98, 99):
        first, some = around(lines, line, 10)
        assert len(some) == 10 and str(line) in some and some[0] == str(first)
    assert around(["a"], 0, 10) == (0, ["a"])
