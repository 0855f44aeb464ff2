"""The documentation builds as a site without a warning, and the site needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from snippets import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name, reason='the site needs mkdocs; pip install ".[docs]" in a clone')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_loads_only_files_of_the_site(site):
    pages = list(site.rglob("*.html"))
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"([^\"]+)", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"([^\"]+)", text)
        for address in loaded:
            assert not re.match(r"(\w+:)?//", address), (page, address)
            # Addresses of the page for what is not found begin at the root of the server.
            where = site if address.startswith("/") else page.parent
            assert (where / address.lstrip("/").split("?")[0]).exists(), (page, address)


def test_reference_has_commands_and_examples(site):
    commands = (site / "reference" / "command-line.html").read_text("utf-8")
    for name in ("mender train", "mender recommend", "mender benchmark build", "mender preferences write"):
        assert f">{name}<" in commands
    assert "--preset" in commands
    recommender = (site / "reference" / "recommender.html").read_text("utf-8")
    assert 'id="mender.Recommender.add_items"' in recommender and "&gt;&gt;&gt; " in recommender


def test_results_are_reached_with_their_figures(site):
    results = (site / "results" / "index.html").read_text("utf-8")
    linked = re.findall(r'href="([^"#]+\.(?:json|html))', results)
    assert any(address.endswith(".json") for address in linked)
    assert all((site / "results" / address).exists() for address in linked if "://" not in address)
