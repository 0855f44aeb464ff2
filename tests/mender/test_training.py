"""Settings of a run are checked before anything is computed, on machines with and without an accelerator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mender.training import choose_preset
from modeling_mender.training.run import no_accelerator

ON_CPUS = pytest.mark.skipif(not no_accelerator(), reason="there is an accelerator")


@ON_CPUS
def test_mixed_precision_needs_no_accelerator():
    assert choose_preset("mender-tok", training={"bf16": True}).training["bf16"] is True


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
