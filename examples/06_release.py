"""From a trained model to four repositories on the Hub, in six steps; five of them need no network.

    python examples/06_release.py                                   # the packaged model; `make release`
    python examples/06_release.py outputs/steam/mender-seed0/model --license cc-by-4.0
    python examples/06_release.py --publish org --dry-run           # what would be uploaded; `make publish ORG=org`

1. mender-small: the model, with its code and card.   2. preference-discerning: the benchmark of the corner shop, beside
others that were built there.   3. preference_discerning: the metric, a Space.   4. mender-demo: the page, a Space that
shows the model.   5. Load and use each of them from its folder, offline.
6. With --publish: upload all four to an organisation, each in one commit.

Everything is under dist/hub/ (or --output). Nothing is asked: publishing takes the token that you logged in with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub import HfApi, ModelCard, get_token

from mender import Recommender
from mender.cli import options
from mender.evaluation import metric_folder
from mender.learning import upload, write_with_card
from mender.model_folder import replace_folder
from mender.packaged import packaged_models
from mender.showcase import SHOWCASE_FILE
from mender.terminal import UserError, run_script, user_errors
from modeling_mender import write_card
from preference_benchmark import build, recipe
from preference_benchmark.hub import publish as benchmark_hub

ROOT = Path(__file__).resolve().parents[1]
MODEL, BENCHMARK, METRIC, PAGE = "mender-small", "preference-discerning", "preference_discerning", "mender-demo"
KINDS = {BENCHMARK: "dataset", MODEL: "model", METRIC: "space", PAGE: "space"}
"""What each repository is, in the order in which they are published: the page reads the model."""
SHOP = "corner-shop"
LICENCE = ROOT / "LICENSE"

Organisation = Annotated[
    str | None, typer.Option(metavar="ORG", help="Upload what was built to this organisation or user of the Hub.")
]
Check = Annotated[bool, typer.Option("--check", help="Only load and use what was built, from its folders.")]


def main(
    model: options.Model = SHOP,
    output: options.Output = Path("dist/hub"),
    license_: options.License = None,
    publish: Organisation = None,
    dry_run: options.DryRun = False,
    check: Check = False,
) -> None:
    """The steps."""
    with user_errors():
        if publish:
            upload_all(output, publish, dry_run)
        elif check:
            use_all(output)
        else:
            build_all(output, model, license_)


def build_all(output: Path, model: str, license_: str | None) -> None:
    """Build the four folders and check them in another process, which may not use the network."""
    sys.path.append(str(ROOT / "examples" / "demo"))
    from space import write_space

    shop = Recommender.from_pretrained(model)
    write_model(shop, output / MODEL, model, license_)
    build(recipe(SHOP), output / BENCHMARK, stages=Path("outputs/cache/stages") / SHOP, progress=False)
    for name, write in ((METRIC, write_metric), (PAGE, write_space)):
        shutil.rmtree(output / name, ignore_errors=True)
        write(output / name)
    again = [sys.executable, __file__, "--check", "--output", str(output)]
    done = subprocess.run(again, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise UserError(f"what was built under {output} cannot be used; see above")
    print(f"Publish it: make publish ORG=your-organisation, or {Path(__file__).name} --publish your-organisation")


def write_model(shop: Recommender, folder: Path, name: str, license_: str | None) -> None:
    """Step 1. The page shows the shoppers of showcase.json, which has histories of customers only on request."""
    with replace_folder(folder) as unfinished:
        write_with_card(shop, unfinished)
        card = write_card(unfinished, shop.model, model_name=MODEL, **({"license": license_} if license_ else {}))
        if not ModelCard.load(card).data.license:
            raise UserError(f"the card of {name} names no licence; pass one, such as --license apache-2.0")
        if shop.folder is not None and (shop.folder / SHOWCASE_FILE).is_file():
            shutil.copyfile(shop.folder / SHOWCASE_FILE, unfinished / SHOWCASE_FILE)
        if name in packaged_models():
            shutil.copyfile(LICENCE, unfinished / LICENCE.name)


def write_metric(folder: Path) -> None:
    """Step 3."""
    shutil.copytree(metric_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(LICENCE, folder / LICENCE.name)


def use_all(output: Path) -> None:
    """Step 5: load each from its folder, as strangers would, and use it."""
    import tempfile

    import evaluate
    from datasets import load_dataset
    from transformers import pipeline

    folder = str(output / MODEL)
    shop = Recommender.from_pretrained(folder)
    bought = [item["item_id"] for item in shop.items[:3]]
    asked = {"preference": "tea with a malty brew"} if shop.processor.reads_preference else {"history": bought}
    found = shop.recommend(**asked, top_k=3)
    if pipeline("generative-retrieval", model=folder, trust_remote_code=False)(asked, top_k=3) != found:
        raise UserError(f"{folder} gives other items through transformers than through Recommender")
    report(output, MODEL, f"{asked}: {found[0]['title']}")

    with tempfile.TemporaryDirectory() as cache:  # the cache of data sets tells folders apart by their cards alone
        for name in benchmark_names(output):
            examples = load_dataset(str(output / BENCHMARK), name, split="test", cache_dir=cache)
            report(output, BENCHMARK, f"{name}: {len(examples):,} test examples")

    metric = evaluate.load(str(output / METRIC))
    scores = metric.compute(predictions=[["a", "b"], ["c", "d"]], references=["b", "x"], ks=[2], n_resamples=0)
    report(output, METRIC, f"recall@2 of a list that has its target and one that has not: {scores['recall@2']}")

    sys.path.insert(0, str((output / PAGE).resolve()))
    from page_model import load_model

    page = load_model(folder)
    report(output, PAGE, f"{page.num_items:,} items, {len(page.shoppers)} shoppers")


def benchmark_names(output: Path) -> list[str]:
    """Names of the benchmarks in the folder of the data set."""
    return [benchmark.name for benchmark in benchmark_hub.contents(output / BENCHMARK)]


def report(output: Path, name: str, answer: str) -> None:
    """One line on what was built, and what it answered."""
    files = [path for path in (output / name).rglob("*") if path.is_file() and not hidden(path, output)]
    size = sum(path.stat().st_size for path in files)
    print(f"{output / name}: {KINDS[name]}, {len(files)} files, {size:,} bytes. {answer}")


def hidden(path: Path, output: Path) -> bool:
    """Whether a file stays at home: stages of a build and locks."""
    return any(part.startswith(".") for part in path.relative_to(output).parts)


def upload_all(output: Path, organisation: str, dry_run: bool) -> None:
    """Step 6: say what goes where, then upload it."""
    if lacking := [name for name in KINDS if not (output / name / "README.md").is_file()]:
        raise UserError(f"{output} has no {lacking[0]}; run `make release` first")
    names = {name: f"{organisation}/{name}" for name in KINDS}
    for name, kind in KINDS.items():
        if kind == "dataset":
            print(benchmark_hub.plan(output / name, names[name]))
        else:
            report(output, name, f"To {names[name]}")
    if dry_run:
        return
    if get_token() is None:
        raise UserError("publishing needs a token of the Hub: log in with `hf auth login`, or set HF_TOKEN")
    for name in (METRIC, PAGE):
        name_in_card(output / name / "README.md", organisation)
    print(benchmark_hub.publish(output / BENCHMARK, names[BENCHMARK]))
    shop = Recommender.from_pretrained(output / MODEL)
    print(upload(output / MODEL, shop.model, names[MODEL]))
    api = HfApi()
    for name in (METRIC, PAGE):
        api.create_repo(names[name], repo_type="space", space_sdk="gradio", exist_ok=True)
        if name == PAGE:
            api.add_space_variable(names[PAGE], "MENDER_MODEL", names[MODEL])
        what = {"folder_path": output / name, "commit_message": "Publish the Space", "delete_patterns": "*"}
        print(api.upload_folder(repo_id=names[name], repo_type="space", **what).commit_url)


def name_in_card(card: Path, organisation: str) -> None:
    """Let the snippets of a Space's card load what is in that organisation."""
    text = card.read_text("utf-8")
    for here in (f'"metrics/{METRIC}"', f'"org/{METRIC}"'):
        text = text.replace(here, f'"{organisation}/{METRIC}"')
    card.write_text(text, "utf-8")


if __name__ == "__main__":
    run_script(main, __doc__)
