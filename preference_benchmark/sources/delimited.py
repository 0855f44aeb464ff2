"""Raw files of separated fields: comma-separated with a header, or any separator without one.

Parquet files, or folders of them, as lazy tables of known columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from preference_benchmark.sources.raw_files import RawFile, blocks, read_bytes
from preference_benchmark.sources.raw_lines import RawLines, Rejected, text_lines

__all__ = [
    "read_csv",
    "read_delimited",
    "scan_parquet",
]


def read_csv(
    path: RawFile,
    types: Mapping[str, pl.DataType | type[pl.DataType]],
    *,
    required: tuple[str, ...] = (),
    only: bool = False,
    encoding: str = "utf-8",
) -> pl.DataFrame:
    """A comma-separated file with a header.

    Args:
        path: the file; gzip is recognised by its content.
        types: types of columns by name; the others' are inferred from all their values.
        required: columns without which the file is of no use.
        only: leave out the columns that `types` does not name.
        encoding: of the file.

    Raises:
        ValueError: if columns are missing or a line is not in the encoding, or has another number of fields.
    """
    data = read_bytes(path)
    try:
        data = data if encoding.lower() in ("utf-8", "utf8") else data.decode(encoding).encode()
        header = pl.read_csv(data, n_rows=0).columns
        missing = [name for name in required if name not in header]
        if missing:
            raise ValueError(
                f"{path} lacks the columns {missing}; found {header}. Is it the right file for this source?"
            )
        overrides = {name: dtype for name, dtype in types.items() if name in header}
        columns = list(overrides) if only else None
        return pl.read_csv(data, columns=columns, schema_overrides=overrides, infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeError) as error:
        _refuse_foreign(path, data, encoding)
        raise ValueError(f"{path} cannot be read as its ending says ({error}); check the file.") from error


def read_delimited(
    path: RawFile,
    fields: Mapping[str, pl.DataType | type[pl.DataType]],
    separator: str,
    *,
    encodings: tuple[str, ...] = ("utf-8",),
    max_malformed: float = 0.01,
) -> RawLines:
    """A file without a header whose lines all have the same fields.

    Args:
        path: the file; gzip is recognised by its content.
        fields: names and types of the fields, in order.
        separator: what stands between them, of any length; fields are not quoted.
        encodings: tried in turn on every block.
        max_malformed: share of malformed lines above which the file is refused: those with another number of fields,
            with a value that is not of its type, or in none of the encodings.

    Raises:
        ValueError: if the file is empty, damaged, or has too many malformed lines.
    """
    frames, lines, rejected = [], 0, Rejected()
    names = list(fields)
    for first_line, block in blocks(path):
        text = next(
            (text for encoding in encodings if not (text := text_lines(block, encoding)).null_count()),
            text_lines(block, encodings[0]),
        )
        rows = text.to_frame("line").with_row_index("number", offset=first_line)
        rows = rows.filter((pl.col("line") != "").fill_null(True))
        lines += rows.height
        rejected.not_utf8 += rows["line"].null_count()
        parts = pl.col("line").str.split(separator)
        fitting = rows.filter((parts.list.len() == len(names)).fill_null(False))
        fitting = fitting.select("number", parts.list.to_struct(fields=names)).unnest("line")
        read = fitting.select("number", *(pl.col(name).cast(dtype, strict=False) for name, dtype in fields.items()))
        # An empty field is null; another that comes out as null is not of its type.
        lost = pl.DataFrame({name: read[name].is_null() & (fitting[name].str.strip_chars() != "") for name in names})
        read = read.filter(~lost.select(pl.any_horizontal(pl.all())).to_series())
        rejected.numbers += rows.join(read, on="number", how="anti")["number"].to_list()
        frames.append(read.drop("number"))
    if not lines:
        raise ValueError(f"{path} is empty; download it again or name another file.")
    expected = f"{len(names)} fields ({', '.join(names[:6])}) separated by {separator!r}"
    rejected.refuse_many(path, lines, max_malformed, expected)
    return RawLines(pl.concat(frames), lines, len(rejected.numbers), rejected.named(path))


def _refuse_foreign(path: RawFile, data: bytes, encoding: str) -> None:
    """Raise a ValueError that names the first line that is not in the encoding, if there is one."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line:,} of {path} is not {encoding} (byte {data[error.start]:#04x}); convert the file "
            "(iconv -f LATIN1 -t UTF-8), or name its encoding if the source has an option for it."
        ) from error


def scan_parquet(
    path: Path, fields: Mapping[str, pl.DataType | type[pl.DataType]] | None = None, required: tuple[str, ...] = ()
) -> pl.LazyFrame:
    """A lazy table over a Parquet file, or over all Parquet files of a folder in the order of their names.

    Args:
        path: the file or folder.
        fields: columns to keep and the types to bring them to; one that the file lacks is null. None keeps all.
        required: columns that the file must have.

    Raises:
        ValueError: if it is no Parquet, lacks a required column, or a column cannot have the wanted type.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no Parquet file; expected files named *.parquet.")
    try:
        frame = pl.scan_parquet(files)
        schema = frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); download it again.") from error
    missing = [name for name in required if name not in schema]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; found {schema.names()}. Is it the right file for this source?"
        )
    if fields is None:
        return frame
    return frame.select(
        pl.col(name).cast(dtype) if name in schema else pl.lit(None, dtype).alias(name)
        for name, dtype in fields.items()
    )
