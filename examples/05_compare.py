"""Several runs side by side: one table, the paper's star plot, and which differences are more than noise.

    python examples/05_compare.py outputs/corner-shop/*-seed* --reference mender-tok --output outputs/comparison

Each folder is what 02_train.py or 04_evaluate.py wrote. Runs of one method with several seeds become one row: the mean
over seeds, and a bootstrap over examples that keeps the seeds of an example together. A difference to the reference is
resampled pair by pair, example by example; it is marked where its 95% interval leaves out zero.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from five_axis_evaluation import read_json
from run_comparison import Comparison, compare, draw_stars, print_comparison, save_comparison


def parse_arguments() -> argparse.Namespace:
    """Command line of a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--reference", help="method that others are compared with; default: that of the first run")
    parser.add_argument("--output", type=Path, default=Path("outputs/comparison"))
    parser.add_argument("--resamples", type=int, default=2000)
    return parser.parse_args()


def main() -> None:
    """Read, compare, print, draw."""
    arguments = parse_arguments()
    try:
        runs = {folder: read_json(folder / "five_axes.json") for folder in arguments.runs}
        comparison: Comparison = compare(runs, arguments.reference, arguments.resamples)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print_comparison(comparison)
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw_stars(comparison, arguments.output / "stars.png")
    save_comparison(comparison, arguments.output)
    print(f"Saved under {arguments.output}/: stars.png, comparison.json, comparison.md")


if __name__ == "__main__":
    main()
