"""Raw files come as lines of UTF-8, whatever their encoding, line ends and packing."""

from __future__ import annotations

import codecs
import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_benchmark.sources import raw_files
from preference_benchmark.sources.raw_files import ArchiveMember, blocks, find_file, nonblank_lines

LINES = ["café,1", "", "plain,2", "世界,3", "last,4"]
MARKS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


def lines_of(path: Path, encoding: str = "utf-8") -> list[str]:
    found = list(blocks(path, encoding))
    numbers = [number for number, _ in found]
    assert numbers == [1 + sum(block.count(b"\n") for _, block in found[:n]) for n in range(len(found))]
    return b"".join(block for _, block in found).decode().split("\n")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1 << 26, 40])
@pytest.mark.parametrize("encoding", [*MARKS, "utf-32-le"])
def test_encodings_and_line_ends(tmp_path, monkeypatch, encoding, end, size, compress):
    monkeypatch.setattr(raw_files, "_BLOCK", size)
    data = MARKS.get(encoding, codecs.BOM_UTF32_LE) + end.join(LINES).encode(encoding)
    path = tmp_path / "f.txt"
    path.write_bytes(gzip.compress(data) if compress else data)
    assert lines_of(path) == LINES


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_an_encoding_without_a_mark_is_named(tmp_path, encoding):
    path = tmp_path / "f.txt"
    path.write_bytes("\n".join(["café", "plain"]).encode(encoding))
    assert lines_of(path, encoding) == ["café", "plain"]


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        ("a,b\n".encode("utf-16-le"), "utf-8", "seems to be UTF-16 without .*encoding='utf-16-le'"),
        ("a,b\n".encode("utf-16-be"), "utf-8", "encoding='utf-16-be'"),
        ("a,b\n".encode("utf-16-le"), "utf-16", "no byte order mark; pass encoding='utf-16-le' or 'utf-16-be'"),
        (codecs.BOM_UTF16_LE + b"a\x00\n\x00b", "utf-8", "not utf-16-le at line 2 or soon after"),
        (b"a\n\x81b", "cp1252", "not cp1252 at line 1 or soon after"),
        (b"a", "klingon", "encoding='klingon' is not known"),
        (b"a\x00\x01\x02", "utf-8", "binary file"),
    ],
)
def test_what_is_not_in_its_encoding_is_refused(tmp_path, data, encoding, message):
    path = tmp_path / "f.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        list(blocks(path, encoding))


@given(st.lists(st.sampled_from(["", " ", "\t ", "a", " b ", "\x0b", "c\x0c"]), max_size=12), st.booleans())
def test_written_lines_are_those_that_are_not_blank(lines, ended):
    block = "\n".join(lines).encode() + (b"\n" if ended else b"")
    expected = [number for number, line in enumerate(block.split(b"\n")) if line.strip()]
    assert nonblank_lines(block).tolist() == expected


def test_members_of_archives_are_read_where_they_are(tmp_path):
    (tmp_path / "f.txt").write_text("a\r\nb\r\n")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.write(tmp_path / "f.txt", "folder/f.txt")
    with tarfile.open(tmp_path / "f.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "f.txt", "folder/f.txt")
    for name in ("f.zip", "f.tar.gz"):
        assert [block for _, block in blocks(ArchiveMember(tmp_path / name, "folder/f.txt"))] == [b"a\nb\n"]


def test_a_file_beside_its_packed_self_must_be_told_apart(tmp_path):
    for name in ("games.json", "games.json.gz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has both games\.json\.gz and games\.json; remove one"):
        find_file(tmp_path, ("games.json.gz", "games.json"), "games")
    assert find_file(tmp_path / "games.json", ("games.json",), "games").name == "games.json"
