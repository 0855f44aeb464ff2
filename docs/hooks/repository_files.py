"""Pages of the site that lie elsewhere in the repository: README, changelog, results, and all files that pages link to.

Links between pages are those that work in the repository. Here the files that they lead to become part of the site, so
that it needs no other place: Markdown as pages, code as pages that show it, folders as lists, the rest as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath, splitext
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# The pages of the menu that are not in docs/, by the address that they have in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/results/README.md": "results/index.md",
}
CODE = {".py": "python", ".yaml": "yaml", ".sh": "bash"}
LINK = re.compile(r"(?<=\]\()([^)#\s]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages named above, and whatever they and the pages of docs/ link to."""
    waiting = [*PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages() if not file.generated_by)]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        address = _address(path)
        if files.get_file_from_path(address) is None:
            files.append(_file(path, address, config))
            _PATHS[address] = path
        for target in _linked(path):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the site."""
    path = _PATHS.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda link: _in_the_site(path, link[1]) + link[2], markdown)


# Where each page that is not in docs/ comes from, by its address.
_PATHS: dict[str, str] = {}


def _address(path: str) -> str:
    """Where a file of the repository lies in the site, as Markdown names it."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    return f"files/{path}.md" if splitext(path)[1] in CODE else f"files/{path}"


def _file(path: str, address: str, config: Any) -> File:
    """A file of the repository as a file of the site."""
    source, ending = ROOT / path, splitext(path)[1]
    if source.is_dir():
        return File.generated(config, address, content=_listing(path))
    if ending in CODE:
        text = source.read_text("utf-8")
        return File.generated(config, address, content=f"# {path}\n\n`````{CODE[ending]}\n{text}\n`````\n")
    return File.generated(config, address, abs_src_path=str(source))


def _listing(path: str) -> str:
    """The files of a folder; those that a browser shows are links."""
    lines = []
    for file in sorted((ROOT / path).rglob("*")):
        name = file.relative_to(ROOT / path).as_posix()
        if file.is_file() and "__pycache__" not in name:
            lines.append(f"- [{name}]({name})" if file.suffix in (".json", ".md", ".png", *CODE) else f"- {name}")
    return f"# {path}\n\n" + "\n".join(lines) + "\n"


def _linked(path: str) -> Iterator[str]:
    """Files and folders of the repository that a page links to."""
    source = ROOT / path
    if source.is_dir():
        text = _listing(path)
    elif source.suffix == ".md" and source.is_file():
        text = source.read_text("utf-8")
    else:
        return
    for link, _ in LINK.findall(text):
        target = _target(path, link)
        if target is not None:
            yield target


def _target(path: str, link: str) -> str | None:
    """The path in the repository that a link of a page leads to, if it leads to one."""
    if re.match(r"\w+:", link):
        return None
    target = normpath(join(path if (ROOT / path).is_dir() else dirname(path), link))
    if (ROOT / target / "README.md").is_file():
        return f"{target}/README.md"
    return target if (ROOT / target).exists() else None


def _in_the_site(path: str, link: str) -> str:
    """A link of a page, as it is in the site; what leads to nothing stays, and the build reports it."""
    target = _target(path, link)
    if target is None:
        return link
    return relpath(_address(target), dirname(_address(path)) or ".")
