"""What a Trainer knows about a training, as a section of a card: settings, losses by epoch, versions."""

from __future__ import annotations

from typing import Any

from transformers.modelcard import TrainingSummary

__all__ = ["training_section"]

HEADING = "\n## Training procedure\n"


def training_section(trainer: Any) -> str:
    """The part of the Trainer's own card that is about the training, as Markdown.

    Args:
        trainer: after or during training.
    """
    # No name to look up: the licence is read elsewhere, and nothing here shall ask the Hub.
    summary = TrainingSummary.from_trainer(trainer, finetuned_from="", tasks=[])
    text = summary.to_model_card().partition(HEADING)[2]
    if metrics := trainer.state.best_metric:
        text += (
            f"\nBest {trainer.args.metric_for_best_model}: {metrics:.4f}, at step {trainer.state.best_global_step}\n"
        )
    return f"## Training procedure\n{text}"
