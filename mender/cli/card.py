"""`mender card`: the card of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mender.cli import options
from mender.terminal import UserError, results, user_errors

__all__ = ["card"]


def card(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    figures: Annotated[
        Path | None,
        typer.Option("--results", help="Results for the card.", show_default="five_axes.json in the folder above"),
    ] = None,
    history: options.History = None,
    preference: options.Preferences = None,
    name: options.Name = None,
    repo_id: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Name of the model on the Hub.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Name of the benchmark on the Hub.")] = None,
    license_: options.License = None,
    language: Annotated[list[str] | None, typer.Option(help="Language of the texts, such as en; repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace text that was written by hand.")] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Upload the card to --repo-id; edits on the Hub are kept.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write or update the card of a saved model, README.md.

    `mender train` and `mender evaluate` write cards themselves. This command adds a licence, languages, names on the
    Hub, results from elsewhere, and one list of recommendations for each --preference. Text that people wrote stays.
    """
    with results(as_json, quiet) as show:
        from mender.packaged import model_place

        if model_place(str(model)) != str(model):
            raise UserError(
                f"{model} is installed with this package, and its card stays as it is; save a copy with "
                f'Recommender.from_pretrained("{model}").save_pretrained(folder), and pass that folder'
            )
        if not model.is_dir():
            raise UserError(f"there is no folder {str(model)!r}; load a model from the Hub and save it first")
        if push and not repo_id:
            raise UserError("--push needs the name of the repository; pass --repo-id ORG/NAME")
        from mender.cards import encoder_name, steer
        from mender.item_names import find_items
        from mender.recommender import Recommender
        from modeling_mender.hub.card import push_card, write_card

        with user_errors():
            shop = Recommender.from_pretrained(model)
        results_path = model.resolve().parent / "five_axes.json"
        # Only the model of a run has its results in the folder above; other folders may be next to other models.
        figures = figures or (results_path if model.resolve().name == "model" and results_path.is_file() else None)
        items = find_items(shop.processor, history or [])
        given = {"license": license_, "datasets": dataset and [dataset], "language": language}
        with user_errors():
            shown = [steer(shop, items, preference)] if preference else []
            path = write_card(
                model,
                shop.model,
                results=figures,
                steering=shown,
                model_name=name,
                repo_id=repo_id,
                overwrite=overwrite,
                defaults={"base_model": encoder_name(shop.model)},
                **{key: value for key, value in given.items() if value},
            )
            commit = push_card(model, repo_id) if push else None
        show({"card": str(path), "results": figures and str(figures), **({"commit": commit} if commit else {})})
        print(f"Wrote {path}" + (f" with the figures of {figures}" if figures else "; no figures: pass --results"))
        if commit:
            print(f"Uploaded it: {commit}")
