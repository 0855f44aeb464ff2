"""Downloads against a server on the loopback interface that breaks off, ignores ranges and changes its files."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preference_benchmark.sources import SOURCES, download
from preference_benchmark.sources.download import PUBLIC_FILES, ChecksumError, PublicDataset, PublicFile, fetch

CONTENT = hashlib.shake_256(b"a file").digest(300_000)


@dataclass
class Server:
    """What the server holds, how it misbehaves, and what it was asked for."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    breaks: int = 0  # answers that end after 100,000 bytes
    ranges: bool = True
    length: bool = True
    status: list[int] = field(default_factory=list)  # answers to give before any content
    asked: list[str | None] = field(default_factory=list)  # the Range header of every request
    url: str = ""


@pytest.fixture
def server(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.status:
                self.send_error(state.status.pop(0))
                return
            start = 0
            if wanted and state.ranges and self.headers.get("If-Range") == state.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            total = len(state.content)
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if state.length:
                self.send_header("Content-Length", str(total - start))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            body = state.content[start:]
            if state.breaks:
                state.breaks -= 1
                body = body[:100_000]
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{running.server_port}/file.bin"
        yield state
        running.shutdown()
        thread.join()


def dataset(url: str, manual: bool = False, **known: object) -> PublicDataset:
    return PublicDataset("table", (PublicFile("file.bin", url, **known),), "terms", "https://example.org/home", manual)


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_whole_and_is_not_asked_for_again(server, tmp_path):
    wanted = dataset(server.url, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    folder = tmp_path / "made" / "on the way"
    assert fetch(wanted, folder, progress=False) == folder
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert left_over(folder) == {"file.bin", "file.bin.sha256"}
    assert fetch(wanted, folder, progress=False) == folder
    assert server.asked == [None]
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", "file.bin.sha256"], cwd=folder, check=True)


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.breaks = 2
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_later_call_continues_what_an_earlier_one_has_left(server, tmp_path, monkeypatch):
    server.breaks = 1
    with monkeypatch.context() as patch:  # killed while it waits to go on
        patch.setattr(download.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(dataset(server.url), tmp_path, progress=False)
    assert left_over(tmp_path) == {"file.bin.part", "file.bin.part.version"}
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_not_spliced(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"another version's beginning")
    (tmp_path / "file.bin.part.version").write_text('"zero"\n')
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("flaw", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_server_that_cannot_continue_begins_again(server, tmp_path, flaw):
    for name, value in flaw.items():
        setattr(server, name, value)
    server.breaks = 2
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_complete_part_is_taken_and_one_that_is_too_long_is_not(server, tmp_path):
    part = tmp_path / "file.bin.part"
    for content in (CONTENT, CONTENT + b"more"):
        part.write_bytes(content)
        (tmp_path / "file.bin.part.version").write_text('"one"\n')
        fetch(dataset(server.url), tmp_path, progress=False)
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()


def test_a_busy_server_is_asked_again_and_a_missing_page_is_not(server, tmp_path):
    server.status = [503, 429]
    fetch(dataset(server.url), tmp_path / "busy", progress=False)
    assert (tmp_path / "busy" / "file.bin").read_bytes() == CONTENT
    server.asked.clear()
    server.status = [404] * 9
    with pytest.raises(FileNotFoundError, match="404"):
        fetch(dataset(server.url), tmp_path / "gone", progress=False)
    assert len(server.asked) == 1


def test_a_server_that_brings_nothing_is_given_up(server, tmp_path):
    server.status = [500] * 99
    with pytest.raises(FileNotFoundError, match="500"):
        fetch(dataset(server.url), tmp_path, progress=False)
    assert len(server.asked) == download._ATTEMPTS


def test_without_a_length_the_end_of_the_answer_is_the_end_of_the_file(server, tmp_path):
    server.length = False
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"size": 7}])
def test_a_wrong_checksum_or_size_is_an_error_and_leaves_nothing(server, tmp_path, known):
    with pytest.raises(ChecksumError, match=r"published.*try again"):
        fetch(dataset(server.url, **known), tmp_path, progress=False)
    assert left_over(tmp_path) == set()


def test_the_first_download_is_trusted_and_another_one_later_is_not(server, tmp_path):
    fetch(dataset(server.url), tmp_path, progress=False)
    (tmp_path / "file.bin").unlink()
    server.content, server.etag = CONTENT[::-1], '"two"'
    with pytest.raises(ChecksumError, match="fetched first"):
        fetch(dataset(server.url), tmp_path, progress=False)
    (tmp_path / "file.bin.sha256").unlink()
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


def test_a_fetched_file_must_stay_as_it_was_and_one_put_there_is_taken(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    fetch(dataset(server.url, sha256="0" * 64), tmp_path, progress=False)
    assert server.asked == []
    (tmp_path / "file.bin.sha256").write_text(hashlib.sha256(b"theirs").hexdigest() + "  file.bin\n")
    with pytest.raises(ChecksumError, match="Remove it to fetch it again"):
        fetch(dataset(server.url), tmp_path, progress=False)


def test_a_full_disk_is_seen_before_and_while_writing(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1_000))
        with pytest.raises(OSError, match=r"300,000 more bytes.*1,000 free") as refused:
            fetch(dataset(server.url), tmp_path, progress=False)
    assert refused.value.errno == errno.ENOSPC

    class Full(download.tqdm):
        def update(self, n=1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(download, "tqdm", Full)
        with pytest.raises(OSError, match="space"):
            fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin.part").stat().st_size > 0
    fetch(dataset(server.url), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked[-1].startswith("bytes=")


@pytest.mark.parametrize("why", ["offline", "refused", "terms"])
def test_what_cannot_be_downloaded_is_listed_with_its_place(server, tmp_path, monkeypatch, why):
    url = server.url
    if why == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if why == "refused":
        url = "http://127.0.0.1:9/file.bin"
    with pytest.raises(FileNotFoundError) as missing:
        fetch(dataset(url, manual=why == "terms", size=300_000), tmp_path, progress=False)
    said = str(missing.value)
    assert all(part in said for part in (str(tmp_path), "file.bin (300,000 bytes)", url, "https://example.org/home"))
    assert ("in person" in said) == (why == "terms")
    assert server.asked == []
    (tmp_path / "file.bin").write_bytes(b"put there")
    assert fetch(dataset(url, manual=why == "terms"), tmp_path) == tmp_path


def test_the_archive_that_is_given_serves_as_well_as_its_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)_review\.json, or yelp_dataset\.tar, from.*_business") as error:
        fetch(PUBLIC_FILES["yelp"], tmp_path)
    assert "in person" in str(error.value)
    (tmp_path / "yelp_dataset.tar").write_bytes(b"given")
    assert fetch(PUBLIC_FILES["yelp"], tmp_path) == tmp_path


def test_an_optional_file_may_stay_away(server, tmp_path):
    server.status = [404]
    assert fetch(dataset(server.url, optional=True), tmp_path, progress=False) == tmp_path
    assert left_over(tmp_path) == set()


def test_the_table_of_public_files_is_in_order():
    assert set(PUBLIC_FILES) == {"beauty", "sports", "toys", "steam", "yelp", "movielens"}
    for public in PUBLIC_FILES.values():
        assert public.source in SOURCES
        assert public.notice and public.homepage.startswith("https://")
        for file in public.files:
            assert file.url.startswith("https://")
            assert public.manual or file.url.endswith("/" + file.name)
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
