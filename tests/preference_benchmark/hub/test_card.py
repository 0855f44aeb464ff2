"""The card: head and text follow from the statistics of the benchmarks alone."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import yaml
from benchmark_doubles import HashEmbedder
from hostile_text import hostile_text

from preference_benchmark import build, recipe
from preference_benchmark.hub import plots
from preference_benchmark.hub.card import markdown_table, render, specificity_warnings
from preference_benchmark.hub.folder import contents


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda built, margins, title, folder: None)
        chosen = recipe("corner-shop", options={"num_users": 60, "num_items": 40})
        (found,) = contents(build(chosen, tmp_path_factory.mktemp("built"), embedder=HashEmbedder(), progress=False))
    return found


def second(shop, **changes):
    """A benchmark like the shop under another name."""
    configs = {name.replace("corner-shop", "attic"): config for name, config in shop.statistics["configs"].items()}
    statistics = shop.statistics | {"name": "attic", "title": "The attic", "configs": configs} | changes
    return SimpleNamespace(name="attic", place="attic/0123", statistics=statistics)


def test_the_head_names_the_files_of_every_config(shop):
    head = yaml.safe_load(render([shop, second(shop)]).split("---\n")[1])
    names = ["attic", "attic-last", "attic-items", "corner-shop", "corner-shop-last", "corner-shop-items"]
    assert [config["config_name"] for config in head["configs"]] == names
    assert [config["config_name"] for config in head["configs"] if config.get("default")] == ["attic"]
    assert head["configs"][2]["data_files"] == [{"split": "items", "path": "attic/0123/attic-items/items-*.parquet"}]


def test_the_order_of_the_benchmarks_changes_nothing(shop):
    assert render([shop, second(shop)]) == render([second(shop), shop])


def test_every_benchmark_has_a_section_with_its_terms_and_figures(shop):
    card = render([shop, second(shop, may_publish=False, notice="Not for others.")])
    assert card.count("### How it was validated") == card.count("### How it was made") == 2
    assert "**Terms.** Not for others. **Do not publish what is built from it.**" in card
    assert "| matched preference (oracle) states a true like |" in card and "{{" not in card
    headings = [block for block in card.split("\n\n") if block.startswith("#")]
    assert all("\n" not in heading for heading in headings)  # a blank line before and after each


def test_axes_that_cannot_tell_models_apart_are_named(shop):
    specificity = shop.statistics["specificity"]
    wishes = specificity["open_wishes (withheld)"]
    lost = wishes | {"by_cosine": 0.1, "by_aspects": 0.12, "popularity": 0.1, "tells_apart": False}
    changed = {"clear": wishes | {"tells_apart": True}, "lost": lost}
    warnings = specificity_warnings({"specificity": changed})
    assert len(warnings) == 1 and warnings[0].startswith("lost cannot tell whether a model uses preferences")
    assert "(0.120)" in warnings[0] and f"n = {wishes['n']:,}" in warnings[0]
    card = render([second(shop, specificity=changed)])
    assert f"**{warnings[0]}**" in card and "| lost |" in card
    assert all(f"| {name} |" in render([shop]) for name in specificity)


def test_cells_keep_within_their_table():
    table = markdown_table(["a", "b"], [["x | y\nz", 1234567], ["", 0.5]])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| x \\| y z | 1,234,567 |", "|  | 0.500 |"]


def test_text_of_others_makes_neither_html_nor_images_nor_links(shop):
    hostile = "The\nattic " + " ".join(hostile_text("shown", "markup"))
    duplicates = shop.statistics["validation"]["duplicates"]
    common = {"common": duplicates["preferences"]["most_common"] | {"text": hostile}}["common"]
    preferences = duplicates["preferences"] | {"most_common": common}
    validation = shop.statistics["validation"] | {"duplicates": duplicates | {"preferences": preferences}}
    read = shop.statistics["read"] | {"notes": {hostile: 3}, "malformed": {hostile: 2}, "files": [hostile]}
    wishes = next(iter(shop.statistics["specificity"].values())) | {"tells_apart": False}
    changes = {name: hostile for name in ("title", "notice", "preferences_by", "embedder")}
    changes |= {"read": read, "specificity": {hostile: wishes}, "homepage": "javascript:a", "validation": validation}
    head, _, card = render([second(shop, **changes)]).partition("\n---\n")
    assert yaml.safe_load(head[4:])["pretty_name"] == "Preference discerning" and "\n---\n" not in card
    assert card.count("The attic &lt;") >= 8
    assert not re.search(r"<[a-z!/|]", card) and "javascript:a)" not in card
    assert {*re.findall(r"\]\(([^)/]*)", card)} == {"https:", "attic"}
    assert not {one for one in card if not one.isprintable()} - {"\n"}
    assert "## The attic &lt;" in card and "| The attic &lt;" in card
