from __future__ import annotations

import os

import polars as pl
import pytest
from benchmark_doubles import HashEmbedder

from preference_benchmark.embedding import VectorStore
from preference_benchmark.stages import Stages, digest_of_code, write_atomically

FRAME = pl.DataFrame({"a": [1, 2]})


def test_a_stage_is_made_once_and_read_from_then_on(tmp_path):
    seen, made = [], []

    def build():
        made.append(1)
        return FRAME

    for _ in range(2):
        stages = Stages(tmp_path, lambda name, found: seen.append(found))
        assert stages.frame("numbers", "key", build).equals(FRAME)
    assert (seen, len(made)) == ([False, True], 1)
    assert Stages(tmp_path).frame("numbers", "other", build).equals(FRAME) and len(made) == 2


def test_nothing_is_kept_without_a_folder():
    made = []
    stages = Stages(None)
    for _ in range(2):
        stages.frame("numbers", "key", lambda: made.append(1) or FRAME)
    assert len(made) == 2


def test_an_error_leaves_no_stage(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        Stages(tmp_path).path("numbers", "key", fail)
    assert list(tmp_path.iterdir()) == []


def test_pruning_keeps_what_was_used(tmp_path):
    old = Stages(tmp_path)
    old.frame("numbers", "old", lambda: FRAME)
    (tmp_path / ".unfinished-killed").mkdir()
    new = Stages(tmp_path)
    new.frame("numbers", "new", lambda: FRAME)
    new.prune()
    assert [path.name for path in tmp_path.iterdir()] == ["numbers-new"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"] and path.read_bytes() == b"old"


def test_code_digests_tell_modules_apart():
    assert digest_of_code("axes") != digest_of_code("axes/steering")
    assert digest_of_code("sources") == digest_of_code("sources")


def test_stored_vectors_are_those_of_the_embedder_in_any_order_and_session(tmp_path):
    texts = [f"text {n}" for n in range(23)]
    expected = HashEmbedder().encode(texts)
    first = HashEmbedder()
    store = VectorStore(tmp_path, lambda: first, chunk=5, progress=False)
    assert (store.encode(texts[:12] * 2) == expected[[*range(12)] * 2]).all()
    assert (store.encode(texts[::-1]) == expected[::-1]).all()
    assert sorted(first.asked) == sorted(texts)

    def never():
        raise AssertionError("every text is known")

    again = VectorStore(tmp_path, never, chunk=5, progress=False)
    assert (again.encode(pl.Series(texts)) == expected).all()
    assert again.encode([]).shape == (0, 16)


def test_a_store_may_have_more_chunks_than_a_process_may_open_files(tmp_path):
    resource = pytest.importorskip("resource")
    texts = [f"text {n}" for n in range(200)]
    expected = HashEmbedder().encode(texts)
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/dev/fd")))
    free = [number for number in range(len(taken) + 100) if number not in taken]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[40], most))
        for _ in range(2):  # made, and opened again
            assert (VectorStore(tmp_path, HashEmbedder, chunk=1, progress=False).encode(texts) == expected).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def test_an_interrupted_chunk_is_made_again(tmp_path):
    texts = [f"text {n}" for n in range(10)]
    VectorStore(tmp_path, HashEmbedder, chunk=5, progress=False).encode(texts)
    (tmp_path / "000001.parquet").unlink()  # vectors were written, the texts were not
    again = HashEmbedder()
    found = VectorStore(tmp_path, lambda: again, chunk=5, progress=False).encode(texts)
    assert (found == HashEmbedder().encode(texts)).all() and len(again.asked) == 5
    (tmp_path / "000000.parquet").unlink()
    with pytest.raises(ValueError, match="lacks chunk 000000"):
        VectorStore(tmp_path, HashEmbedder)
