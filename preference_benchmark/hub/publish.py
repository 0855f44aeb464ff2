"""A built folder to the Hub, in one commit: readers see the old state or the new one.

What `load_dataset("org/preference-discerning", "steam")` then reads is Parquet and a card; no code travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, metadata_load
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from preference_benchmark.hub.folder import contents, problems, published_files

__all__ = [
    "Plan",
    "plan",
    "publish",
]


_OF_THE_HUB = (".gitattributes",)


@dataclass(frozen=True)
class Plan:
    """What an upload would do; `print` it.

    Attributes:
        repo_id: where to.
        files: size in bytes by path, of what is uploaded.
        notices: terms of each data set, by its title.
        forbidden: data sets whose terms do not let them be passed on.
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


def plan(output: Path, repo_id: str) -> Plan:
    """What `publish` would upload; asks nobody.

    Raises:
        ValueError: if the folder holds no data set, or its files are not those that were built.
    """
    output = Path(output)
    files = published_files(output)
    wrong = problems(output)
    if wrong:
        raise ValueError("the folder cannot be published:\n" + "\n".join(wrong))
    found = [data_set.statistics for data_set in contents(output)]
    return Plan(
        repo_id,
        {path.as_posix(): (output / path).stat().st_size for path in files},
        {statistics["title"]: statistics["notice"] for statistics in found},
        tuple(statistics["name"] for statistics in found if not statistics["may_publish"]),
    )


def publish(
    output: Path,
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
        output: the folder that was built.
        repo_id: "organisation/name"; made where there is none.
        private: whether a new repository is private.
        replace: whether data sets that the repository has and the folder lacks may be removed.
        permitted: whether whoever publishes has permission for data whose terms forbid it.
        message: of the commit.
        token: of the Hub; default: the one that is logged in.

    Returns:
        The address of the commit.

    Raises:
        ValueError: if terms forbid it, or the repository has data sets that would be lost.
    """
    what = plan(output, repo_id)
    if what.forbidden and not permitted:
        raise ValueError(
            f"the terms of {list(what.forbidden)} do not let a benchmark built from them be passed on: "
            f"{' '.join(what.notices.values())} Build without them, or, with the permission of their owners, pass "
            "permitted=True (--permitted)."
        )
    api = HfApi(token=token)
    there = _files_there(api, repo_id)
    lost = _data_sets_there(api, repo_id, there) - {data_set.name for data_set in contents(output)}
    if lost and not replace:
        raise ValueError(
            f"{repo_id} has the data sets {sorted(lost)}, which {output} lacks and which would be removed; build "
            "them into the same folder, or pass replace=True (--replace)."
        )
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    operations = [CommitOperationAdd(path, str(Path(output) / path)) for path in what.files]
    stale = sorted(there - set(what.files) - set(_OF_THE_HUB))
    operations += [CommitOperationDelete(path) for path in stale]
    commit = api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset")
    return commit.commit_url


def _files_there(api: HfApi, repo_id: str) -> set[str]:
    try:
        return set(api.list_repo_files(repo_id, repo_type="dataset"))
    except RepositoryNotFoundError:
        return set()


def _data_sets_there(api: HfApi, repo_id: str, files: set[str]) -> set[str]:
    """Names of the data sets that the repository's card has configs for."""
    if "README.md" not in files:
        return set()
    try:
        card = metadata_load(api.hf_hub_download(repo_id, "README.md", repo_type="dataset"))
    except EntryNotFoundError:
        return set()
    paths = [entry["path"] for config in (card or {}).get("configs") or [] for entry in config["data_files"]]
    return {path.split("/")[0] for path in paths}
