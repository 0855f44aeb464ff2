"""A page to try a saved model on: say what you want, and see what is found and why.

python examples/demo/app.py                                    # the model that is installed, or that of `make demo`
python examples/demo/app.py --model outputs/steam/mender-seed0/model
MENDER_MODEL=org/mender-small python app.py                    # in a Space: see README.md
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from page_model import ModelError, load_model

HERE = Path(__file__).resolve().parent
DEFAULTS = tuple(folder / "model" for folder in (HERE, Path("outputs/quickstart"))) + tuple(
    root / "outputs" / "quickstart" / "model" for root in HERE.parents[1:2]
)
"""Where to look for a model if none is given: next to this file, then where `make demo` saves it."""
INSTALLED = "corner-shop"
"""The model to show where there is none."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = f"MENDER_MODEL, or the model that `make demo` saved, or {INSTALLED}, which is installed"
    parser.add_argument("--model", help=f"folder or Hub id; default: {default}")
    parser.add_argument("--host", help="address to listen on; default: this machine alone")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="a public link for 72 hours, through gradio's servers")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser.parse_args(arguments)


def model_name(given: str | None) -> str:
    """The model that was named, the first that is found, or the one that is installed."""
    name = given or os.environ.get("MENDER_MODEL")
    return name or str(next((folder for folder in DEFAULTS if folder.is_dir()), INSTALLED))


def main() -> None:
    """Load, build, serve."""
    arguments = parse_arguments()
    try:
        shown = load_model(model_name(arguments.model))
    except ModelError as error:  # what came, what was expected, what to do: no traceback needed
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from page import LOOK, build_page  # takes seconds to import, which an error need not wait for

    try:
        build_page(shown).launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=arguments.share,
            inbrowser=arguments.open,
            footer_links=["api", "settings"],
            **LOOK,
        )
    except OSError as error:
        print(f"error: cannot listen ({error}); pass another --port or --host", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
