"""Raw files of separated fields, with a header or without, and Parquet files.

Polars alone would fill rows that are too short, rename columns that stand twice, and let one stray quotation mark
swallow the rows behind it. So the ends of rows and fields are found first, by numpy; polars then reads the rows that
are as long as the header. A block in which quotation marks stand where the scan does not expect them goes to Python's
csv module, which knows what they mean or that they mean nothing (15 times slower on 300,000 rows with reviews).
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from preference_benchmark.sources.raw_files import RawFile, blocks, nonblank_lines
from preference_benchmark.sources.raw_lines import (
    LINE,
    NOT_UTF8,
    Field,
    LineCount,
    Number,
    RawLines,
    dtypes,
    text_lines,
)
from preference_benchmark.tables.columns import name_list

__all__ = ["SEPARATORS", "parquet_errors", "read_csv", "read_delimited", "scan_parquet", "typed"]

SEPARATORS = (",", ";", "\t", "|")
Select = Callable[[list[str]], Mapping[str, str]]


def read_csv(
    path: RawFile,
    select: Select,
    *,
    required: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    separator: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    max_malformed: float = 0.0,
) -> RawLines:
    """A file of separated fields with a header, every field as text.

    Args:
        path: the file; gzip is recognised by its content.
        select: from the names in the header to the columns that are kept, as the name that each gets and its name in
            the header.
        required: names in the header without which the file is of no use.
        keys: names of kept columns whose values tell rows from prose.
        separator: what stands between fields; None: the one of `SEPARATORS` by which the header has most of the
            selected columns.
        quote: what encloses fields that hold separators or line ends, doubled inside; "" if nothing does.
        encoding: of the file, where it has no byte order mark.
        max_malformed: share of rows with another number of fields than the header above which the file is refused.

    Returns:
        The kept columns, null where a field is empty, and `LINE`, on which a row begins. Nothing where the file has
        none of the columns.

    Raises:
        ValueError: if the file is empty, not in its encoding, or without rows; if the header lacks a column or names
            one twice; if too many rows are malformed; if a quotation mark is out of place, or the lines of a quoted
            field are rows (see `_Rows.refuse_swallowed`).
    """
    for name, mark in (("separator", separator), ("quote", quote)):
        if mark and (len(mark) != 1 or not mark.isascii()):
            raise ValueError(f"{name}={mark!r}: pass one ASCII character.")
    rows, rest, first = None, b"", 1
    frames: list[pl.DataFrame] = []
    for number, block in blocks(path, encoding):
        _refuse_foreign(path, block, number)
        if rows is None:
            if not block.strip():
                continue
            rows, header = _Rows.below_header(path, block, number, select, required, separator, quote)
            if not rows.kept:
                return RawLines(pl.DataFrame(), rows.count, tuple(rows.names))
            first, rest = number + block.count(b"\n", 0, header), block[header:]
            continue
        end = rows.last_end(rest)
        if end:
            frames.append(rows.read(rest[:end], first))
        first, rest = first + rest.count(b"\n", 0, end), rest[end:] + block
    if rows is None:
        raise ValueError(f"{path} is empty; download it again or name another file.")
    frames.append(rows.read(rest, first))
    if not rows.count.lines:
        raise ValueError(f"{path} has a header ({name_list(rows.names)}) and no rows.")
    rows.count.refuse_many(
        max_malformed,
        f"{len(rows.names)} fields separated by {rows.separator!r}, as in the header ({name_list(rows.names)})",
    )
    frame = pl.concat(frames)
    rows.refuse_swallowed(frame, [key for key in keys if key in rows.kept])
    return RawLines(frame, rows.count, tuple(rows.names))


class _Rows:
    """Reads blocks of whole rows of one file.

    Args:
        path: the file.
        names: of the header.
        kept: the columns that are kept, as the name that each gets and its name in the header.
        separator: one character.
        quote: one character, or "".
    """

    def __init__(self, path: RawFile, names: list[str], kept: Mapping[str, str], separator: str, quote: str) -> None:
        self.path, self.names, self.kept, self.separator, self.quote = path, names, kept, separator, quote
        self.count = LineCount(path)
        self._places = [names.index(name) for name in kept.values()]
        self._marks_in_plain_fields = False
        # Lines of quoted fields that are rows without marks: the row's line, their own, whether all are, kept values.
        self._swallowed: list[tuple] = []

    @classmethod
    def below_header(
        cls,
        path: RawFile,
        block: bytes,
        first_line: int,
        select: Select,
        required: tuple[str, ...],
        separator: str | None,
        quote: str,
    ) -> tuple[_Rows, int]:
        """The reader of a file, and how many bytes of its first block the header takes."""
        found, refused = [], []
        for mark in SEPARATORS if separator is None else (separator,):
            plain = cls(path, [], {}, mark, quote)
            try:
                line, names, ended = next(plain.parsed(block, first_line))
            except ValueError as error:  # quoted names have other characters behind them than this one
                refused.append(error)
                continue
            names = [name.strip() for name in names]
            found.append((cls(path, names, select(names), mark, quote), ended))
        if not found:
            raise refused[0]
        rows, ended = max(found, key=lambda pair: (len(pair[0].kept), len(pair[0].names)))
        twice = [name for name in dict.fromkeys(rows.names) if name and rows.names.count(name) > 1]
        if twice:
            raise ValueError(
                f"the header of {path} names {name_list(twice)} more than once; rename or remove one of each."
            )
        missing = [name for name in required if name not in rows.names]
        if missing:
            raise ValueError(
                f"{path} lacks the columns {missing}; found {name_list(rows.names)}. Is it the right "
                "file for this source?"
            )
        lines = block.split(b"\n", ended - first_line + 1)
        return rows, min(sum(len(line) + 1 for line in lines[: ended - first_line + 1]), len(block))

    def last_end(self, block: bytes) -> int:
        """Where the last whole row of a block ends."""
        if not self.quote or self.quote.encode() not in block:
            return block.rfind(b"\n") + 1
        data = np.frombuffer(block, dtype=np.uint8)
        quotes, ends = (np.flatnonzero(data == ord(mark)) for mark in (self.quote, "\n"))
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        end = int(ends[-1]) + 1 if len(ends) else 0
        # Where marks are ordinary characters or out of place, only the end of the file is surely the end of a row.
        return end if _regular(data[:end], quotes[quotes < end], ord(self.separator)) else 0

    def read(self, block: bytes, first_line: int) -> pl.DataFrame:
        """The rows of a block; malformed ones are counted."""
        frame = self._scanned(block, first_line)
        frame = self._one_by_one(block, first_line) if frame is None else frame
        return frame.with_columns(pl.when(pl.col(name) != "").then(name) for name in self.kept)

    def _scanned(self, block: bytes, first_line: int) -> pl.DataFrame | None:
        """The rows, as far as quotation marks stand where the format has them; else None."""
        block = block if block.endswith(b"\n") or not block else block + b"\n"
        data = np.frombuffer(block, dtype=np.uint8)
        line_ends, separators = (np.flatnonzero(data == ord(mark)) for mark in ("\n", self.separator))
        row_ends, between, inner = line_ends, separators, line_ends[:0]
        if self.quote and self.quote.encode() in block:
            quotes = np.flatnonzero(data == ord(self.quote))
            if not _regular(data, quotes, ord(self.separator)):
                self._marks_in_plain_fields = True
                return None
            inside = np.searchsorted(quotes, line_ends) % 2 == 1
            row_ends, inner = line_ends[~inside], line_ends[inside]
            between = separators[np.searchsorted(quotes, separators) % 2 == 0]
        starts = np.concatenate([[0], row_ends[:-1] + 1]).astype(np.int64)[: len(row_ends)]
        fields = np.diff(np.searchsorted(between, row_ends), prepend=0) + 1
        blank = fields == 1
        blank[blank] = [not block[starts[row] : row_ends[row]].strip() for row in np.flatnonzero(blank)]
        lines = first_line + np.searchsorted(line_ends, starts)
        short, long = (fields < len(self.names)) & ~blank, fields > len(self.names)
        good = ~(blank | short | long)
        if good.all():
            whole = block
        else:  # runs of good rows
            edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]])))
            runs = edges.reshape(-1, 2).tolist()
            whole = b"".join(block[starts[begin] : row_ends[end - 1] + 1] for begin, end in runs)
        frame = self._by_polars(whole)
        if frame.height != good.sum():
            return None
        self._count(int((~blank).sum()), lines[short].tolist(), lines[long].tolist())
        if len(inner):
            at = np.searchsorted(line_ends, starts)
            fewest = np.minimum.reduceat(np.diff(np.searchsorted(separators, line_ends), prepend=0), at)
            spanning = np.searchsorted(line_ends, row_ends) > at
            for row in np.flatnonzero(good & spanning & (fewest >= len(self.names) - 1)).tolist():
                self._note_lines(int(lines[row]), block[starts[row] : row_ends[row]])
        return frame.with_columns(pl.Series(LINE, lines[good], dtype=pl.Int64))

    def _by_polars(self, block: bytes) -> pl.DataFrame:
        if not block:
            return pl.DataFrame(schema=dict.fromkeys(self.kept, pl.String))
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                columns=sorted(self._places),
                separator=self.separator,
                quote_char=self.quote or None,
                infer_schema=False,
            )
        except pl.exceptions.PolarsError:
            return pl.DataFrame()
        frame.columns = [name for _, name in sorted(zip(self._places, self.kept, strict=True))]
        return frame.select(list(self.kept))

    def _one_by_one(self, block: bytes, first_line: int) -> pl.DataFrame:
        """The rows as the csv module reads them."""
        columns: list[list[str]] = [[] for _ in self._places]
        lines, short, long, total = [], [], [], 0
        written = block.split(b"\n")
        for line, row, ended in self.parsed(block, first_line):
            total += 1
            if len(row) != len(self.names):
                (short if len(row) < len(self.names) else long).append(line)
                continue
            lines.append(line)
            for column, place in zip(columns, self._places, strict=True):
                column.append(row[place])
            if ended > line:
                self._note_lines(line, b"\n".join(written[line - first_line : ended - first_line + 1]))
        self._count(total, short, long)
        frame = pl.DataFrame(dict(zip(self.kept, columns, strict=True)), schema=dict.fromkeys(self.kept, pl.String))
        return frame.with_columns(pl.Series(LINE, lines, dtype=pl.Int64))

    def parsed(self, block: bytes, first_line: int) -> Iterator[tuple[int, list[str], int]]:
        """Rows by the csv module, with the lines on which they begin and end; blank ones are left out."""
        limit = csv.field_size_limit(sys.maxsize)
        line = first_line
        try:
            quoting = {"quotechar": self.quote, "strict": True} if self.quote else {"quoting": csv.QUOTE_NONE}
            reader = csv.reader(io.StringIO(block.decode("utf-8"), newline=""), delimiter=self.separator, **quoting)
            for row in reader:
                if len(row) > 1 or row and row[0].strip():
                    yield line, row, first_line + reader.line_num - 1
                line = first_line + reader.line_num
        except csv.Error as error:
            near = first_line + reader.line_num - 1
            shown = block.split(b"\n")[line - first_line][:80].decode("utf-8", "replace")
            raise ValueError(
                f"the row that begins in line {line:,} of {self.path} ({shown!r}) has a quotation mark or line end "
                f"out of place, seen in line {near:,} ({error}). Repair it, or pass quote='' if quotation marks are "
                "ordinary characters in this file."
            ) from None
        finally:
            csv.field_size_limit(limit)

    def _note_lines(self, first_line: int, row: bytes) -> None:
        """Remember which lines of a row would be rows without the marks around the field that joins them."""
        mark, separator = re.escape(self.quote), re.escape(self.separator)
        quoted = re.compile(rf"(?:\A|(?<={separator})){mark}((?:[^{mark}]|{mark}{mark})*){mark}")
        text = quoted.sub(lambda field: field[1] if "\n" in field[1] else field[0], row.decode("utf-8"))
        lines = [self._fields(line) for line in text.split("\n")]
        if lines[-1] is None:  # the mark that closes the field may be one that was meant to open another
            lines[-1] = self._fields(row.decode("utf-8").rsplit("\n", 1)[1])
        every = None not in lines
        self._swallowed += [
            (first_line, number, every, *(fields[place] for place in self._places))
            for number, fields in enumerate(lines, first_line)
            if fields is not None and (every or number > first_line)
        ]

    def _fields(self, line: str) -> list[str] | None:
        """The fields of a line, if they are as many as the header has."""
        try:
            fields = next(csv.reader([line], delimiter=self.separator, quotechar=self.quote, strict=True), [])
        except csv.Error:
            return None
        return fields if len(fields) == len(self.names) else None

    def refuse_swallowed(self, frame: pl.DataFrame, keys: list[str]) -> None:
        """Raise a ValueError if a quoted field holds rows rather than text.

        A stray mark at the start of a field and another at the end of one leave a file that is well-formed: all rows
        from the one to the other have become one field. Taking the two marks away shows it: then *every* line that
        the field spans is a row, as long as the header, with ids, and with numbers and times where the other rows
        have them. That is refused. Where a table has neither, ids of the shape that others have (letters and digits in
        the same places) must do; that is refused from four lines on. Less is not proof, as people do write such lines
        into reviews: it is read as text, and noted.

        A single mark too many or too few leaves a mark in a plain field, as no writer of CSV does. In such a file one
        line inside a quoted field that is a row is refused.
        """
        if not self._swallowed or not keys:
            return
        schema = {"row": pl.Int64, LINE: pl.Int64, "every": pl.Boolean} | dict.fromkeys(self.kept, pl.String)
        lines = pl.DataFrame(self._swallowed, schema=schema, orient="row")
        others = frame.filter(~pl.col(LINE).is_in(lines["row"].implode()))
        nothing_else = others.is_empty()
        others = lines if nothing_else else others
        numbers = [name for name in self.kept if name not in keys and _of_numbers(others[name])]
        filled = {name: pl.col(name) != "" for name in self.kept}
        known = {name: others.select(_shape(pl.col(name)).unique()).to_series() for name in [*keys, *numbers]}
        alike = {name: _shape(pl.col(name)).is_in(shapes.implode()) for name, shapes in known.items()}
        is_row = pl.all_horizontal(*(filled[key] for key in keys), *(alike[name] | ~filled[name] for name in numbers))
        by_numbers = is_row & pl.any_horizontal(pl.lit(False), *(filled[name] for name in numbers))
        by_ids = is_row & pl.all_horizontal(alike[key] for key in keys)
        fields = lines.group_by("row", maintain_order=True).agg(
            pl.col("every").first(),
            lines=pl.len(),
            by_numbers=by_numbers.all() & (not nothing_else),
            by_ids=by_ids.all(),
            any=(by_numbers | by_ids).any(),
        )
        whole = pl.col("every") & (pl.col("by_numbers") | (pl.col("by_ids") & (pl.col("lines") >= 4)))
        proven = fields.filter(whole | (pl.lit(self._marks_in_plain_fields) & pl.col("any")))
        for begun, height in proven.select("row", "lines").iter_rows():
            raise ValueError(
                f"the quoted field that opens in line {begun:,} of {self.path} holds {height:,} lines that read as "
                "rows of their own: a quotation mark is missing or too many. Repair it; pass quote='' if quotation "
                "marks are ordinary characters; or write the table as JSON lines or Parquet."
            )
        noted = fields.filter(pl.col("every") & pl.col("by_ids"))
        self.count.note(noted["row"], "quoted fields of which every line reads as a row, taken as text")

    def _count(self, rows: int, short: list[int], long: list[int]) -> None:
        self.count.lines += rows
        for numbers, what in ((short, "few"), (long, "many")):
            if numbers:
                self.count.reject(numbers, f"rows with too {what} fields")


def _regular(data: np.ndarray, quotes: np.ndarray, separator: int) -> bool:
    """Whether every other quotation mark opens a field and the rest close one, or stand twice inside."""
    if len(quotes) % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    doubled = np.zeros(len(opening) + 1, dtype=bool)
    doubled[1:-1] = opening[1:] == closing[:-1] + 1
    begins = (opening == 0) | np.isin(data[opening - 1], (separator, ord("\n")))
    ends = np.isin(data[closing + 1], (separator, ord("\n")))
    return bool((begins | doubled[:-1]).all() and (ends | doubled[1:]).all())


def _of_numbers(values: pl.Series) -> bool:
    """Whether a column of text holds numbers or times, and nothing else."""
    known = values.drop_nulls()
    return not known.is_empty() and known.str.contains(r"^[0-9TZ:+./, -]*[0-9][0-9TZ:+./, -]*$").all()


def _shape(text: pl.Expr) -> pl.Expr:
    """Where letters and digits stand: "B07-x1" is "a9-a9"."""
    return text.str.replace_all(r"\p{L}+", "a").str.replace_all(r"\p{N}+", "9")


def _refuse_foreign(path: RawFile, block: bytes, first_line: int) -> None:
    """Raise a ValueError that names the first line that is not UTF-8, if there is one."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + block.count(b"\n", 0, error.start)
        raise ValueError(
            f"line {line:,} of {path} is not utf-8 (byte {block[error.start]:#04x}); convert the file "
            "(iconv -f LATIN1 -t UTF-8), or name its encoding if the source has an option for it."
        ) from None


def read_delimited(
    path: RawFile,
    fields: Mapping[str, Field],
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
    frames, count = [], LineCount(path)
    names = list(fields)
    for first_line, block in blocks(path):
        count.lines += len(nonblank_lines(block))
        text = next(
            (text for encoding in encodings if not (text := text_lines(block, encoding)).null_count()),
            text_lines(block, encodings[0]),
        )
        rows = text.to_frame("text").with_row_index(LINE, offset=first_line)
        count.reject(rows.filter(pl.col("text").is_null())[LINE], NOT_UTF8)
        rows = rows.filter(pl.col("text").str.strip_chars(" \t\x0b\x0c\r") != "")
        parts = pl.col("text").str.split(separator)
        for wrong, what in ((parts.list.len() < len(names), "few"), (parts.list.len() > len(names), "many")):
            count.reject(rows.filter(wrong)[LINE], f"rows with too {what} fields")
        fitting = rows.filter(parts.list.len() == len(names))
        fitting = fitting.select(LINE, parts.list.to_struct(fields=names)).unnest("text")
        frames.append(typed(fitting, fields, count).drop(LINE))
    expected = f"{len(names)} fields ({', '.join(names[:6])}) separated by {separator!r}"
    count.refuse_many(max_malformed, expected)
    return RawLines(pl.concat(frames), count)


def typed(frame: pl.DataFrame, fields: Mapping[str, Field], count: LineCount) -> pl.DataFrame:
    """Text brought to the types of its fields; rows with a value that is not of its type are counted as malformed.

    Args:
        frame: `LINE` and the fields as text; empty text is null.
        fields: their types.
        count: where malformed rows are counted.
    """
    for name, field in fields.items():
        if field == pl.String:
            continue
        text = frame[name].str.strip_chars()
        found = text.cast(dtypes({name: field})[name], strict=False)
        lost = found.is_null() & (text != "")
        if isinstance(field, Number):
            lost |= ~found.is_between(field.least, field.most)
        lost = lost.fill_null(False)
        count.reject(frame[LINE].filter(lost), f"rows whose {name} is not a number that makes sense")
        frame = frame.with_columns(found.alias(name)).filter(~lost)
    return frame


@contextmanager
def parquet_errors(*paths: Path | None) -> Iterator[None]:
    """Turns what polars says of a damaged Parquet file, which is read bit by bit, into a ValueError that names it."""
    try:
        yield
    except (pl.exceptions.ComputeError, pl.exceptions.PanicException, OSError) as error:
        files = [path for path in paths if path is not None and (path.is_dir() or path.suffix == ".parquet")]
        if not files or isinstance(error, FileNotFoundError):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        names = " or ".join(map(str, files))
        raise ValueError(f"{names} cannot be read as Parquet ({reason}); download or write it again.") from error


def _refuse_damaged(path: Path) -> None:
    """Raise a ValueError if a Parquet file cannot be read to its end.

    Polars reads such a file bit by bit, fails late, and prints the traces of its threads. PyArrow says plainly what
    is wrong; a batch at a time it needs little memory, and a sixth of the time that reading takes.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=8_192, use_threads=False):
                batch.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ValueError(f"{path} cannot be read as Parquet ({reason}); download or write it again.") from error


def scan_parquet(path: Path, fields: Mapping[str, Field] | None = None, required: tuple[str, ...] = ()) -> pl.LazyFrame:
    """A lazy table over a Parquet file, or over all Parquet files of a folder in the order of their names.

    Args:
        path: the file or folder.
        fields: columns to keep and the types to bring them to; one that the file lacks is null. None keeps all.
        required: columns that the file must have.

    Raises:
        ValueError: if it is not Parquet, lacks a required column, or a column cannot have the wanted type.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no Parquet file; expected files named *.parquet.")
    for file in files:
        _refuse_damaged(file)
    try:
        with parquet_errors(path):
            frame = pl.scan_parquet(files)
            schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read as Parquet (its schema is damaged); write it again.") from error
    missing = [name for name in required if name not in schema]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; found {name_list(schema.names())}. Is it the right "
            "file for this source?"
        )
    if fields is None:
        return frame
    wanted = dtypes(fields)
    for name in wanted:
        if name not in schema:
            continue
        no_id = name in required and wanted[name] == pl.String and schema[name].is_float()
        if no_id or not _fits(schema[name], wanted[name]):
            raise ValueError(
                f"column {name!r} of {path} has type {schema[name]}, expected {wanted[name]}. Is it the right file for "
                "this source?"
            )
    return frame.select(
        pl.col(name).cast(dtype) if name in schema else pl.lit(None, dtype).alias(name)
        for name, dtype in wanted.items()
    )


def _fits(found: pl.DataType, wanted: pl.DataType | type[pl.DataType]) -> bool:
    """Whether every value of one type is a value of the other."""
    if found == wanted or found == pl.Null:
        return True
    if isinstance(found, pl.List) and isinstance(wanted, pl.List):
        return _fits(found.inner, wanted.inner)
    if wanted == pl.String:
        return found.is_numeric() or isinstance(found, pl.Categorical | pl.Enum)
    if wanted == pl.Float64:
        return found.is_numeric()
    return wanted == pl.Int64 and found.is_integer() and found not in (pl.UInt64, pl.Int128)
