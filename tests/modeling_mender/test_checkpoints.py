"""Which checkpoint a run goes on from."""

from __future__ import annotations

import pytest

from modeling_mender.training.trainer import last_checkpoint


def test_a_checkpoint_without_its_end_does_not_count(tmp_path):
    with pytest.raises(ValueError, match="no finished checkpoint"):
        last_checkpoint(tmp_path)
    state = '{"global_step": %d, "epoch": 1.0, "log_history": []}'
    for step, text in ((9, state % 9), (10, state % 10), (20, '{"global_step": 20, "epo'), (30, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
