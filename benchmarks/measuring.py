"""What the benchmarks share: peak memory of a stretch of code, result files that are whole or absent, table cells."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import torch

from mender.comparison import Cell
from mender.report import interval, number

__all__ = ["PeakMemory", "shown", "synchronise", "write_rows"]


class PeakMemory:
    """Most memory in use at any time since the start, over what was in use then; in MB.

    Host memory is resident memory, whose peak Linux resets on request; elsewhere the peak of the whole process counts.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.cuda = device.startswith("cuda")
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = self._status("VmRSS")
        except OSError:
            self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def read(self) -> float:
        """The peak so far."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**20 - self.before
        try:
            return self._status("VmHWM") - self.before
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self.before

    @staticmethod
    def _status(name: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def synchronise(device: str) -> None:
    """Wait for the accelerator."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def write_rows(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Write a list of flat rows as JSON, one row a line; nothing where no path is given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")
    temporary.replace(path)


def shown(cell: Cell) -> str:
    """Value, mark and interval of a comparison."""
    return f"{number(cell.value)}{cell.mark} ({interval(cell.low, cell.high)})"
