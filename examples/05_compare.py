"""Several runs side by side: one table, the paper's star plot, and which differences are more than noise.

    python examples/05_compare.py outputs/corner-shop/*-seed* --reference mender-tok --output outputs/comparison

Each folder is what 02_train.py or 04_evaluate.py wrote. Runs of one method with several seeds become one column: the
mean over seeds, and a bootstrap that keeps the seeds of an example together. A difference to the reference is resampled
pair by pair; it is marked where its 95% interval leaves out zero.
"""

from __future__ import annotations

from pathlib import Path

from mender.comparison import compare, draw_stars, print_comparison, save_comparison
from mender.runs import read_run
from mender.terminal import run_script, user_errors


def main(
    runs: list[Path], reference: str | None = None, metric: str = "recall@10", output: Path = Path("outputs/comparison")
) -> None:
    """Read, compare, print, draw."""
    with user_errors():
        comparison = compare({folder: read_run(folder) for folder in runs}, reference, metric=metric)
    print_comparison(comparison)
    output.mkdir(parents=True, exist_ok=True)
    draw_stars(comparison, output / "stars.png")
    save_comparison(comparison, output)
    print(f"Saved under {output}/: stars.png, comparison.json, comparison.md")


if __name__ == "__main__":
    run_script(main, __doc__)
