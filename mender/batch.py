"""Recommendations for a table of requests: Parquet in, Parquet shards out, in bounded memory.

Shard k holds the answers to a fixed range of rows and gets its name when it is complete. So a run that was stopped goes
on where it was, and shards may be made in any order, by this process or by many machines (`over_ray`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from mender.model_folder import item_digest
from modeling_mender.request import Request
from preference_benchmark.stages import write_atomically

if TYPE_CHECKING:
    from mender.recommender import Recommender

__all__ = ["BatchReport", "answer_each", "over_ray", "recommend_parquet"]

logger = logging.getLogger(__name__)

FIELDS = [field.name for field in fields(Request)]
SHARD_ROWS, BATCH_SIZE = 10_000, 64
RECORD, LOCK = "batch.json", ".lock"
ANSWERS = [
    pa.field("item_ids", pa.list_(pa.string())),
    pa.field("scores", pa.list_(pa.float32())),
    pa.field("error", pa.string()),
]


@dataclass
class BatchReport:
    """What a run did.

    Attributes:
        requests: rows of the table.
        answered: of these, rows that this run answered.
        refused: rows that this run could not answer; the column `error` says why.
        resumed: rows that an earlier run had done.
        shards: files of answers.
        seconds: of this run.
        first_error: of the rows that were refused.
    """

    requests: int
    answered: int = 0
    refused: int = 0
    resumed: int = 0
    shards: int = 0
    seconds: float = 0.0
    first_error: str | None = None

    def add(self, counts: Mapping[str, Any]) -> None:
        """Count a shard, see `_Run.shard`."""
        self.answered += counts["answered"]
        self.refused += counts["refused"]
        self.first_error = self.first_error or counts["error"]


def recommend_parquet(
    shop: Recommender,
    requests: str | os.PathLike,
    answers: str | os.PathLike,
    *,
    top_k: int = 10,
    batch_size: int = BATCH_SIZE,
    shard_rows: int = SHARD_ROWS,
    unknown_items: str = "error",
    progress: bool = True,
) -> BatchReport:
    """Answer every row of a table of requests; see `Recommender.recommend_parquet`."""
    run = _Run(str(Path(requests)), str(Path(answers)), top_k, batch_size, shard_rows, unknown_items)
    with run.begin(_digest(shop)) as (report, missing):
        start, bar = perf_counter(), _bar(report, progress)
        for number in missing:
            report.add(run.shard(shop, number, bar.update))
        bar.close()
        report.seconds = perf_counter() - start
    return report


def over_ray(
    model: str,
    requests: str | os.PathLike,
    answers: str | os.PathLike,
    *,
    address: str,
    top_k: int = 10,
    batch_size: int = BATCH_SIZE,
    shard_rows: int = SHARD_ROWS,
    unknown_items: str = "error",
    workers: int | None = None,
    gpus: float = 0.0,
    dtype: str | None = None,
    progress: bool = True,
) -> BatchReport:
    """Answer every row of a table of requests on the machines of a Ray cluster, with Ray Data.

    Every worker loads the model once. Table, answers and model must have the same path on all machines, and this
    package must be installed there.

    Args:
        model: folder or name on the Hub.
        requests: see `Recommender.recommend_parquet`.
        answers: see `Recommender.recommend_parquet`.
        address: of the cluster, "auto" for the one that this machine belongs to, or "local" for a new one.
        top_k: see `Recommender.recommend_parquet`.
        batch_size: see `Recommender.recommend_parquet`.
        shard_rows: see `Recommender.recommend_parquet`.
        unknown_items: see `Recommender.recommend_parquet`.
        workers: at most; default: as many as the cluster has room for.
        gpus: of each worker; 0 for processors alone.
        dtype: type of the weights.
        progress: whether to show a bar.

    Raises:
        ImportError: without `ray[data]`.
        ValueError: see `Recommender.recommend_parquet`.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError("batches over Ray need the package ray; `pip install 'ray[data]'`.") from None
    from mender.recommender import Recommender

    logger.info("connecting to Ray")
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    digest = _digest(Recommender.from_pretrained(model, device="cpu", dtype=dtype))
    run = _Run(os.path.abspath(requests), os.path.abspath(answers), top_k, batch_size, shard_rows, unknown_items)

    class Worker:
        def __init__(self) -> None:
            self.shop = Recommender.from_pretrained(model, device="cuda" if gpus else "cpu", dtype=dtype)

        def __call__(self, shards: dict[str, Any]) -> dict[str, Any]:
            done = [run.shard(self.shop, int(number)) for number in shards["shard"]]
            return {name: [one[name] for one in done] for name in done[0]}

    with run.begin(digest) as (report, missing):
        start, bar = perf_counter(), _bar(report, progress)
        if missing:
            ray.data.DataContext.get_current().enable_progress_bars = False
            most = workers or max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1) / (gpus or 1)))
            most = min(most, len(missing))
            done = ray.data.from_items([{"shard": number} for number in missing], override_num_blocks=len(missing))
            done = done.map_batches(
                Worker, batch_size=1, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most), num_gpus=gpus
            )
            for counts in done.iter_rows():
                report.add(counts)
                bar.update(counts["answered"] + counts["refused"])
        bar.close()
        report.seconds = perf_counter() - start
    return report


def answer_each(shop: Recommender, requests: Sequence[Request], **options: Any) -> list[Any]:
    """Answers to requests; one that cannot be answered gets its exception and costs the others no answer.

    A batch with such a request is halved until it stands alone. It is mostly found before anything is computed.
    """
    try:
        return shop.recommend_batch(requests, batch_size=len(requests), **options)
    except Exception as error:
        if len(requests) == 1:
            return [error]
    half = len(requests) // 2
    return answer_each(shop, requests[:half], **options) + answer_each(shop, requests[half:], **options)


@dataclass(frozen=True)
class _Run:
    """A table of requests, the folder of its answers, and how they are made."""

    requests: str
    answers: str
    top_k: int
    batch_size: int
    shard_rows: int
    unknown_items: str
    files: list[str] = field(init=False)
    rows: list[int] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("top_k", "batch_size", "shard_rows"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)}; pass at least 1")
        if self.unknown_items not in ("error", "skip"):
            raise ValueError(f'unknown_items={self.unknown_items!r}; pass "error" or "skip"')
        path = Path(self.requests)
        files = sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else [str(path)] * path.is_file()
        if not files:
            raise ValueError(f"{path} is not a Parquet file and not a folder of Parquet files")
        schemas = [_schema(file) for file in files]
        for file, schema in zip(files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise ValueError(f"{file} has other columns than {files[0]}; pass files of one table")
        _check_columns(files[0], schemas[0])
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "rows", [pq.read_metadata(file).num_rows for file in files])

    def begin(self, model: str) -> _Begun:
        """Checks what an earlier run left, and keeps others out of the folder."""
        sizes = [
            [Path(file).name, os.path.getsize(file), rows] for file, rows in zip(self.files, self.rows, strict=True)
        ]
        how = {name: getattr(self, name) for name in ("top_k", "shard_rows", "unknown_items")}
        return _Begun(self, {"table": sizes, "model": model, **how})

    def path(self, number: int) -> Path:
        """File of a shard."""
        return Path(self.answers) / f"answers-{number:06d}.parquet"

    def shard(self, shop: Recommender, number: int, advance: Any = None) -> dict[str, Any]:
        """Answer the rows of a shard and write them; how many were answered and refused, and the first error."""
        table = self._read(number * self.shard_rows, self.shard_rows)
        known = [name for name in table.column_names if name in FIELDS]
        given = table.select(known).to_pylist(maps_as_pydicts="strict")
        found: list[Any] = [None] * len(given)
        parsed: dict[int, Request] = {}
        for row, one in enumerate(given):
            try:
                parsed[row] = Request.parse(one, top_k=self.top_k)
            except (OverflowError, TypeError, ValueError) as error:
                found[row] = error
        # A batch is padded to its longest text, so that requests of similar length belong together.
        order = sorted(parsed, key=lambda row: (len(parsed[row].history), sum(map(len, parsed[row].texts))))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            answers = answer_each(shop, [parsed[row] for row in rows], unknown_items=self.unknown_items)
            for row, answer in zip(rows, answers, strict=True):
                found[row] = answer
            if advance is not None:
                advance(len(rows))
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, OverflowError | TypeError | ValueError):
                raise error  # not of the request: no memory, a defect
        refused = [error for error in found if isinstance(error, Exception)]
        if advance is not None:
            advance(len(given) - len(order))
        kept = table.select([name for name in table.column_names if name not in FIELDS])
        _write(self.path(number), kept, found)
        first = " ".join(str(refused[0]).split()) if refused else None
        return {"answered": len(found) - len(refused), "refused": len(refused), "error": first}

    def _read(self, start: int, count: int) -> pa.Table:
        """Rows of the table, which may lie in several files; only the row groups that hold them are read."""
        parts, before = [], 0
        for file, rows in zip(self.files, self.rows, strict=True):
            low, high = max(start - before, 0), min(start + count - before, rows)
            before += rows
            if low < high:
                parts.extend(_slices(file, low, high))
        return pa.concat_tables(parts) if parts else _schema(self.files[0]).empty_table()


class _Begun:
    """The folder of answers while a run works on it."""

    def __init__(self, run: _Run, record: dict[str, Any]) -> None:
        self.run, self.record, self.folder = run, record, Path(run.answers)

    def __enter__(self) -> tuple[BatchReport, list[int]]:
        """The report, and the shards that are missing."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; name a folder for the answers")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / LOCK)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another run writes to {self.folder}; wait for it, or name another folder") from None
        try:
            return self._begin()
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, *error: Any) -> None:
        self.lock.release()

    def _begin(self) -> tuple[BatchReport, list[int]]:
        total, size = sum(self.run.rows), self.run.shard_rows
        record, place = json.loads(json.dumps(self.record)), self.folder / RECORD
        try:
            before = json.loads(place.read_text("utf-8")) if place.exists() else None
        except ValueError:
            before = {}
        if before is None and any(self.folder.glob("*.parquet")):
            raise ValueError(f"{self.folder} has Parquet files of something else; name another folder")
        if before is not None and before != record:
            changed = [name for name in record if before.get(name) != record[name]]
            raise ValueError(
                f"{self.folder} has answers to other requests, or of another model or settings "
                f"({', '.join(changed) or 'unreadable'} changed); name another folder, or remove it"
            )
        write_atomically(place, json.dumps(record, indent=1).encode())
        shards = range(-(-total // size))
        missing = [number for number in shards if not self.run.path(number).exists()]
        undone = sum(min(size, total - number * size) for number in missing)
        return BatchReport(total, resumed=total - undone, shards=len(shards)), missing


def _digest(shop: Recommender) -> str:
    """SHA-256 of items and weights."""
    digest = hashlib.sha256(item_digest(shop.model, shop.processor).encode())
    for name, tensor in sorted(shop.model.state_dict().items()):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta:  # weights on disk have no values here
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _schema(file: str) -> pa.Schema:
    try:
        return pq.read_schema(file).remove_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{file} is not a Parquet file ({str(error).splitlines()[0]})") from None


def _check_columns(file: str, schema: pa.Schema) -> None:
    if not set(FIELDS) & set(schema.names):
        raise ValueError(f"{file} has the columns {', '.join(schema.names)}; requests need one of {', '.join(FIELDS)}")
    for name in schema.names:
        if name in {one.name for one in ANSWERS}:
            raise ValueError(f"{file} has a column {name!r}, which the answers have as well; rename it")
        if name not in FIELDS and (close := get_close_matches(name, FIELDS, n=1, cutoff=0.8)):
            raise ValueError(f"{file} has a column {name!r}; did you mean {close[0]!r}? Rename or remove it")


def _slices(file: str, low: int, high: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as opened:
        start = 0
        for group in range(opened.num_row_groups):
            end = start + opened.metadata.row_group(group).num_rows
            if start < high and low < end:
                # Row groups can be as large as the file; batches of them are not.
                place = start
                for part in opened.iter_batches(batch_size=4096, row_groups=[group]):
                    first, last = max(low - place, 0), min(high - place, part.num_rows)
                    if first < last:
                        yield pa.Table.from_batches([part.slice(first, last - first)]).replace_schema_metadata(None)
                    place += part.num_rows
                    if place >= high:
                        break
            start = end


def _write(path: Path, kept: pa.Table, found: Sequence[Any]) -> None:
    """Write a shard under a temporary name, then give it its own."""
    good = [answer if isinstance(answer, list) else None for answer in found]
    columns = [
        [None if answer is None else [item["item_id"] for item in answer] for answer in good],
        [None if answer is None else [item["score"] for item in answer] for answer in good],
        [" ".join(str(answer).split()) if isinstance(answer, Exception) else None for answer in found],
    ]
    for name, values in zip(ANSWERS, columns, strict=True):
        kept = kept.append_column(name, pa.array(values, name.type))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(kept, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _bar(report: BatchReport, progress: bool) -> tqdm:
    return tqdm(total=report.requests, initial=report.resumed, desc="Requests", unit="", disable=not progress)
