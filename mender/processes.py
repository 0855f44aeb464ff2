"""The processes of a run: those that torchrun started, or this one alone."""

from __future__ import annotations

from accelerate import PartialState

from modeling_mender.training_run import no_accelerator

__all__ = ["joined_processes"]


def joined_processes() -> PartialState:
    """What torchrun started, joined. Without an accelerator they must be told to use the CPU, or each runs alone."""
    return PartialState(cpu=no_accelerator())
