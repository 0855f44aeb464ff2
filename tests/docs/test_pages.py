"""Every Python snippet of every page runs, in order; every command names what there is; every link leads somewhere."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import torch
import transformers
from packaging import version
from snippets import PAGES, ROOT, blocks, commands

SAVED = "outputs/quickstart/model"
# Pages whose results are looked at below.
LOOKED_AT = {"docs/hub.md", "docs/serving.md", "docs/own-data.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page not in LOOKED_AT])
def test_snippets_run(page, run_page):
    assert any(run_page(page)[1])


@pytest.mark.skipif(
    version.parse(transformers.__version__) < version.parse("5.12"),
    reason="a folder stands for the repository, and older transformers read no code of several files from one",
)
def test_hub(run_page, place):
    names, printed = run_page("docs/hub.md")
    assert sum(len(text.splitlines()) for text in printed) == 1 + 5 + 3 + 1
    saved, copied = ({path.name for path in (place / folder).iterdir()} for folder in (SAVED, "org/mender-small"))
    assert saved == copied
    assert torch.equal(names["model"].item_codes, names["recommend"].model.item_codes)
    assert "**0.500**" in (place / "outputs/copy/README.md").read_text("utf-8")
    # Fresh adapters change nothing but the order of additions.
    assert torch.equal(names["found"].item_indices, names["before"].item_indices)
    torch.testing.assert_close(names["found"].scores, names["before"].scores)


def test_serving(run_page):
    printed = [text.splitlines() for text in run_page("docs/serving.md")[1] if text]
    first, batch, (below,), (edited,), (corrected,), (why,), (generated,), (fast,) = printed
    assert len(first) == 3 and [text.count("tea") for text in batch] == [3, 3, 5, 3] and below.count("tea") == 5
    assert edited.startswith("True False {'items': 61, 'added': 2, 'removed': 1") and "generator" in why
    assert corrected == "candels with a vanila scent"  # the items here have no such words
    assert len(re.findall(r"-?\d+", generated)) == 5 and fast.count("tea") == 3


def test_own_data(place, capsys):
    """The page's snippets and commands one after the other, as they stand, with a small encoder and decoder."""
    from mender.cli import main

    names: dict = {}
    text = (ROOT / "docs" / "own-data.md").read_text("utf-8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, "docs/own-data.md", "exec"), names)
            continue
        for words in [words for words in commands("docs/own-data.md") if words[1] in block and words[-1] in block]:
            if words[1] == "train":
                words = [word.replace("num_train_epochs=40", "num_train_epochs=1") for word in words]
                words += [] if "popularity" in words else ["--set", "decoder={num_layers: 1, d_ff: 32}"]
            assert words[0] == "mender" and main(words[1:]) == 0, words
    printed = capsys.readouterr().out
    assert "preference: Find books with city breaks" in printed and "mountain walks" in printed
    card = (place / "outputs/bookshop/mender-seed0/model/README.md").read_text("utf-8")
    assert "# Mender for books" in card and "Preference discerning, bookshop" in card


def test_benchmark_page_names_every_field_and_data_set():
    from preference_benchmark.axes.protocol import AXES, PAPER, Protocol
    from preference_benchmark.recipes import RECIPES

    text = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    differing = {field.name for field in fields(Protocol) if getattr(PAPER, field.name) != field.default} - {"matching"}
    assert differing <= set(re.findall(r"^\| `(\w+)` \| `?\w+`?[^|]* \| `", text, flags=re.MULTILINE))
    assert all(f"`{axis}`" in text for axis in AXES)
    assert all(f"`{name}`" in text for name in RECIPES)


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_there_is(page):
    for words in commands(page):
        known = " ".join(words)
        if words[0] == "mender" or words[:3] == ["python", "-m", "mender"]:
            words = words[1:] if words[0] == "mender" else words[3:]
            if words[0].startswith("--"):
                continue
            parses(words, known)
        elif words[0] in ("python", "torchrun"):
            script = next((word for word in words if word.endswith(".py")), None)
            if script is not None:
                assert (ROOT / script).is_file(), known
                text = (ROOT / script).read_text("utf-8") + (ROOT / "mender" / "cli" / "options.py").read_text("utf-8")
                for option in [word[2:] for word in words[words.index(script) :] if word.startswith("--")]:
                    assert f"--{option}" in text or re.search(rf"\b{option.replace('-', '_')}\b", text), known
        elif words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
            assert {word for word in words[1:] if "=" not in word} <= set(targets), known


def parses(words, known):
    """Checks that the command line takes these words and the values of --set and --train, without running them."""
    import typer

    from mender.cli import app
    from mender.cli.options import assignments
    from mender.training import choose_preset
    from preference_benchmark import Protocol

    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context(words[0], [], parent=context, resilient_parsing=True)
        command, words = command.commands[words[0]], words[1:]
    usage_error = typer.BadParameter.__mro__[1]
    try:
        given = command.make_context(known, list(words), parent=context).params
    except usage_error as error:
        pytest.fail(f"{known}: {error.format_message()}")
    changes = assignments(given.get("changes") or [], "--set")
    if "preset" in given:
        training = assignments(given["arguments"] or [], "--train")
        choose_preset(given["preset"], given["conditioning"], changes, training)
    else:
        Protocol().replace(**changes)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
