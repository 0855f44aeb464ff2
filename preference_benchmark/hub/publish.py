"""Upload a built folder to the Hub, in one commit: readers see the old state or the new one.

What `load_dataset("org/preference-discerning", "steam")` then reads is Parquet and a card; no code travels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from preference_benchmark.hub.folder import contents, names_in, problems, published_files

__all__ = [
    "Plan",
    "plan",
    "publish",
]

logger = logging.getLogger(__name__)


_OF_THE_HUB = (".gitattributes",)


@dataclass(frozen=True)
class Plan:
    """What an upload would do; `print` it.

    Attributes:
        repo_id: where to.
        files: size in bytes by path, of what is uploaded.
        notices: terms of each benchmark, by its title.
        forbidden: benchmarks whose terms do not allow them to be published.
    """

    repo_id: str
    files: dict[str, int]
    notices: dict[str, str]
    forbidden: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"{size:>14,}  {path}" for path, size in self.files.items()]
        rows.append(f"{sum(self.files.values()):>14,}  bytes in {len(self.files)} files, to {self.repo_id}")
        rows += [f"{title}: {notice}" for title, notice in self.notices.items()]
        return "\n".join(rows)


def plan(folder: Path, repo_id: str) -> Plan:
    """What `publish` would upload; contacts no server.

    Raises:
        ValueError: if the folder holds no benchmark, or its files are not those that were built.
    """
    folder = Path(folder)
    files = published_files(folder)
    wrong = problems(folder)
    if wrong:
        raise ValueError("the folder cannot be published:\n" + "\n".join(wrong))
    found = [benchmark.statistics for benchmark in contents(folder)]
    return Plan(
        repo_id,
        {path.as_posix(): (folder / path).stat().st_size for path in files},
        {statistics["title"]: statistics["notice"] for statistics in found},
        tuple(statistics["name"] for statistics in found if not statistics["may_publish"]),
    )


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    replace: bool = False,
    permitted: bool = False,
    message: str = "Publish the benchmark",
    token: str | None = None,
) -> str:
    """Upload a folder as a data repository.

    Args:
        folder: the folder that was built.
        repo_id: "organisation/name"; created where there is none.
        private: whether a new repository is private.
        replace: whether benchmarks that the repository has and the folder lacks may be removed.
        permitted: whether the owners of data whose terms forbid publishing have given permission.
        message: of the commit.
        token: of the Hub; default: that of the account that is logged in.

    Returns:
        The address of the commit.

    Raises:
        ValueError: if terms forbid it, or the repository has benchmarks that would be lost.
    """
    what = plan(folder, repo_id)
    if what.forbidden and not permitted:
        raise ValueError(
            f"the terms of {list(what.forbidden)} do not allow a benchmark built from them to be published: "
            f"{' '.join(what.notices.values())} Build without them, or, with the permission of their owners, pass "
            "permitted=True (--permitted)."
        )
    api = HfApi(token=token)
    there = _files_there(api, repo_id)
    lost = _benchmarks_there(api, repo_id, there) - {benchmark.name for benchmark in contents(folder)}
    if lost and not replace:
        raise ValueError(
            f"{repo_id} has the benchmarks {sorted(lost)}, which {folder} lacks and which would be removed; build "
            "them into the same folder, or pass replace=True (--replace)."
        )
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    operations = [CommitOperationAdd(path, str(Path(folder) / path)) for path in what.files]
    stale = sorted(there - set(what.files) - set(_OF_THE_HUB))
    operations += [CommitOperationDelete(path) for path in stale]
    logger.info("uploading %s files to %s", f"{len(what.files):,}", repo_id)
    commit = api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset")
    return commit.commit_url


def _files_there(api: HfApi, repo_id: str) -> set[str]:
    try:
        return set(api.list_repo_files(repo_id, repo_type="dataset"))
    except RepositoryNotFoundError:
        return set()


def _benchmarks_there(api: HfApi, repo_id: str, files: set[str]) -> set[str]:
    """Names of the benchmarks that the repository's card has configs for."""
    if "README.md" not in files:
        return set()
    try:
        return set(names_in(api.hf_hub_download(repo_id, "README.md", repo_type="dataset")))
    except EntryNotFoundError:
        return set()
