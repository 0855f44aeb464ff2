"""Train any method of the comparison on any benchmark, in five steps.

    python examples/02_train.py --preset mender                                  # on the corner shop
    python examples/02_train.py --preset mender-tok --source steam --data path/to/steam
    torchrun --nproc_per_node 2 examples/02_train.py --preset tiger                  # two processes

1. Load the benchmark.   2. Give every item a semantic ID and build the method from its preset.
3. Train it, keep the best weights by validation NDCG@10.   4. Save it.   5. Measure it on all axes.

Training arguments are changed by --train name=value. `mender train` does the same with every option there is.
"""

from __future__ import annotations

from pathlib import Path

from mender.cli import options
from mender.data import encoder_path, load_benchmark_data
from mender.runs import provenance
from mender.terminal import run_script, user_errors
from mender.training import choose_preset, fit, joined_processes, new_method, save_and_measure


@options.grouped
def main(
    tables: options.TableOptions,
    preset: options.Preset = "mender",
    source: options.Source = "corner-shop",
    seed: options.Seed = 0,
    arguments: options.Train = None,
    eval_limit: options.EvalLimit = None,
) -> None:
    """The five steps."""
    origin = provenance(seed)
    with user_errors():
        chosen = choose_preset(preset, training=options.assignments(arguments or [], "--train"))
        with joined_processes().main_process_first():  # under torchrun, one process builds and the others read
            benchmark = load_benchmark_data(source, tables.data, **tables.changes)
        encoder = encoder_path(None)
    print(f"{chosen.name}: {chosen.summary}")
    method = new_method(chosen, benchmark, encoder, seed)

    output = Path("outputs") / benchmark.source / f"{chosen.name}-seed{seed}"
    training = fit(method, benchmark, output / "checkpoints", seed=seed)
    if not joined_processes().is_main_process:
        return
    save_and_measure(
        method,
        benchmark,
        output,
        chosen.name,
        encoder=encoder,
        training=training,
        origin=origin,
        limit=eval_limit,
    )
    print(f"Saved under {output}/: model/, five_axes.png, five_axes.json, ranks.parquet")


if __name__ == "__main__":
    run_script(main, __doc__)
