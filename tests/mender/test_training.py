"""Settings of a run are checked before anything is computed, on machines with and without an accelerator."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import pytest
import torch

from mender.data import codes_of, load_benchmark_data
from mender.training import choose_preset, new_method
from modeling_mender import RqVae
from modeling_mender.training.run import no_accelerator

ON_CPUS = pytest.mark.skipif(not no_accelerator(), reason="there is an accelerator")


@pytest.fixture(autouse=True)
def short_rq_vae(monkeypatch):
    """Codes need not be good."""
    monkeypatch.setattr(RqVae, "fit", partialmethod(RqVae.fit, epochs=3))


@ON_CPUS
def test_mixed_precision_needs_no_accelerator():
    assert choose_preset("mender-tok", training={"bf16": True}).training["bf16"] is True


@pytest.mark.parametrize("spread", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_preset_chooses_the_quantizer(word_shop, tiny_encoder, tmp_path, monkeypatch, spread):
    monkeypatch.chdir(tmp_path)
    data = load_benchmark_data("words", word_shop, tiny_encoder)
    methods = {
        quantizer: new_method(
            choose_preset("mender-emb", changes={"quantizer": quantizer, "spread": spread}), data, tiny_encoder, seed=0
        )
        for quantizer in ("residual-kmeans", "rq-vae")
    }
    assert not torch.equal(methods["rq-vae"].model.item_codes, methods["residual-kmeans"].model.item_codes)
    method = methods["rq-vae"]
    model, inputs = method.model.eval(), method.processor("find tea", ["item-mug"])
    found = model.recommend(**inputs, top_k=5, num_beams=len(data.items))
    exact = model.recommend(**inputs, top_k=5, num_beams="exact")
    assert torch.equal(found.item_indices, exact.item_indices) and len(set(exact.item_indices[0].tolist())) == 5
    again = new_method(method.preset, data, tiny_encoder, seed=1)
    assert torch.equal(again.model.item_codes, model.item_codes)


def test_quantizers_give_every_item_its_own_codes():
    vectors = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    for quantizer in ("residual-kmeans", "rq-vae"):
        plain, spread = (codes_of(vectors, 0, quantizer=quantizer, spread=spread) for spread in (False, True))
        assert len(plain.catalogue) == len(spread.catalogue) == 300
        assert len(plain.codebooks) == plain.catalogue.num_levels - 1
        # Where codes are shared out, few items need the tie-breaking level.
        assert (spread.catalogue.codes[:, -1] > 0).sum() <= (plain.catalogue.codes[:, -1] > 0).sum()
    with pytest.raises(ValueError, match="quantizer='pca' is unknown; pass residual-kmeans or rq-vae"):
        codes_of(vectors, 0, quantizer="pca")
    with pytest.raises(
        ValueError, match=r"quantizer='pca' in preset tiger; pass one of \('residual-kmeans', 'rq-vae'\)"
    ):
        choose_preset("tiger", changes={"quantizer": "pca"})


@ON_CPUS
@pytest.mark.slow
def test_checked_settings_leave_processes_joined(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "from mender.training import choose_preset, joined_processes\n"
        "choose_preset('mender-tok')\n"
        "assert joined_processes().num_processes == 2, joined_processes()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29515"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
