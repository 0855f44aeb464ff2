"""A folder is replaced as a whole or not at all, whatever happens in between, and what does not fit is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import dying_saves
import pytest
from doubles import WORDS, encoder_folder, random_catalogue, shop_items, small_method, tiny_model, word_tokenizer
from dying_saves import VERSIONS, entries, in_fork, no_exchange, save, state

from mender import model_folder
from mender.model_folder import (
    RECORD_FILE,
    check_folder,
    item_digest,
    load_whole,
    read_record,
    replace_folder,
    write_record,
)
from modeling_mender import MenderProcessor

ROOT = Path(__file__).parents[2]
unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(params=["exchange", "renames"])
def way(request, monkeypatch):
    """Both ways of replacing a folder; the second is what systems without an exchange of names do."""
    if request.param == "renames":
        monkeypatch.setattr(model_folder, "_exchange", no_exchange)
    return request.param


def test_the_new_version_takes_the_place_of_the_old_one(tmp_path, way):
    path = tmp_path / "new" / "model"
    for version in "ABAABB":
        save(path, version)
        assert state(path) == version and entries(path) == ["model"]
    assert (path.stat().st_mode & 0o777) == (path.parent.stat().st_mode & 0o777)


def test_all_files_can_be_read_by_the_same_people(tmp_path, way):
    (tmp_path / "new.txt").touch()
    with replace_folder(tmp_path / "model") as folder:
        (folder / "model.safetensors").touch(mode=0o600)
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert modes == {(tmp_path / "new.txt").stat().st_mode}


def test_files_of_others_are_kept_and_ours_are_not(tmp_path, way):
    path = tmp_path / "model"
    save(path, "A")
    (path / "note.md").write_text("mine")
    (path / "own").mkdir()
    (path / "own" / "plan.txt").write_text("mine too")
    (path / "own" / "empty").mkdir()
    (path / "link").symlink_to("note.md")
    (path / "dangling").symlink_to("nowhere")
    with replace_folder(path) as folder:
        for name in (*VERSIONS["B"], "sub/deep"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("B")
        (path / "late.md").write_text("written while another saves")
    kept = {"note.md", "own", "link", "dangling", "late.md"}
    assert {entry.name for entry in path.iterdir()} == {*VERSIONS["B"], "sub", RECORD_FILE, *kept}
    assert (path / "own" / "plan.txt").read_text() == "mine too" and (path / "own" / "empty").is_dir()
    assert (path / "link").read_text() == "mine" and os.readlink(path / "dangling") == "nowhere"
    assert sorted(json.loads((path / RECORD_FILE).read_text())["files"]) == ["b", RECORD_FILE, "shared", "sub/deep"]


def test_a_file_that_others_change_while_we_save_keeps_their_change(tmp_path, way, monkeypatch):
    path = tmp_path / "model"
    save(path, "A")
    (path / "note.md").write_text("before")
    os.utime(path / "note.md", (1, 1))
    commit = model_folder._commit

    def changed_meanwhile(area, target):
        (path / "note.new").write_text("after")
        os.replace(path / "note.new", path / "note.md")
        (path / "other.md").write_text("new")
        return commit(area, target)

    monkeypatch.setattr(model_folder, "_commit", changed_meanwhile)
    save(path, "B")
    assert (path / "note.md").read_text() == "after" and (path / "other.md").read_text() == "new"


def test_weights_of_a_folder_without_a_record_do_not_outlive_it(tmp_path, way):
    path = tmp_path / "model"
    path.mkdir()
    stale = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json", "vocab.txt"]
    for name in (*stale, "README.md"):
        (path / name).write_text("old")
    save(path, "B")
    assert {entry.name for entry in path.iterdir()} == {*VERSIONS["B"], "sub", "README.md", RECORD_FILE}


def test_a_symbolic_link_stays_and_its_folder_is_replaced(tmp_path, way):
    path, link = tmp_path / "real" / "model", tmp_path / "link"
    save(path, "A")
    link.symlink_to(path, target_is_directory=True)
    save(link, "B")
    assert link.is_symlink() and state(path) == "B" and state(link) == "B"
    assert entries(path) == ["model"]


def refusal(path, error=OSError):
    with pytest.raises(error) as raised:
        save(path, "B")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_other_things_than_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(tmp_path / "file", NotADirectoryError)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "link to nothing" in refusal(tmp_path / "dangling", FileNotFoundError)
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop")
    assert "mount point" in refusal(Path("/"))
    assert refusal(tmp_path / "file" / "model")
    assert entries(tmp_path / "file") == ["dangling", "file", "loop"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("call", ["mkdir", "rename"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_system_refuses_is_one_sentence_and_changes_nothing(tmp_path, monkeypatch, call, code):
    path = tmp_path / "model"
    save(path, "A")

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    if call == "rename":
        monkeypatch.setattr(model_folder, "_exchange", no_exchange)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        assert "model was not saved, and is as it was before" in refusal(path)
    assert state(path) == "A" and entries(path) == ["model"]


def test_the_second_rename_may_fail(tmp_path, monkeypatch):
    path = tmp_path / "model"
    save(path, "A")
    monkeypatch.setattr(model_folder, "_exchange", no_exchange)
    rename = os.rename

    def refuse(source, target):
        if Path(source).name == "new":
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert "is as it was before" in refusal(path)
    assert state(path) == "A" and entries(path) == ["model"]


@unix
def test_a_full_disk_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    save(path, "A")

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with replace_folder(path) as folder:
                (folder / "large").write_bytes(bytes(10_000))
        except OSError as error:
            return "no room" not in str(error) or "\n" in str(error)
        return 1

    assert in_fork(fill) == 0
    assert state(path) == "A" and entries(path) == ["model"]


def test_an_error_of_the_writer_leaves_the_old_folder(tmp_path, way):
    path = tmp_path / "model"
    save(path, "A")
    with pytest.raises(KeyError), replace_folder(path) as folder:
        (folder / "shared").write_text("B")
        raise KeyError("x")
    assert state(path) == "A" and entries(path) == ["model"]


# Killed processes


@unix
@pytest.mark.parametrize("first", [False, True], ids=["over another", "first"])
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_process_that_dies_at_any_step_leaves_one_version(tmp_path, way, first):
    """Dies before every single call that changes files."""
    script = Path(dying_saves.__file__)
    command = [sys.executable, str(script), str(tmp_path), way, "first" if first else "over"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps, *versions = done.stdout.split()
    assert int(steps) > 20 and versions == (["B"] if first else ["A", "B"])


SAVING = """
import sys
from itertools import cycle
from pathlib import Path
import dying_saves
if sys.argv[2] == "renames":
    dying_saves.model_folder._exchange = dying_saves.no_exchange
print("ready", flush=True)
for version in cycle("AB"):
    dying_saves.save(Path(sys.argv[1]), version)
"""


@unix
def test_killed_savers_leave_one_version(tmp_path, way):
    path, chance = tmp_path / "model", random.Random(0)
    save(path, "A")
    places = os.pathsep.join([str(ROOT), str(Path(dying_saves.__file__).parent)])
    command, settings = [sys.executable, "-c", SAVING, str(path), way], {**os.environ, "PYTHONPATH": places}
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=settings)
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        child.communicate()
        assert state(path) in "AB"
        save(path, "A")
        assert state(path) == "A" and entries(path) == ["model"]


@unix
def test_the_leftovers_of_a_running_save_are_not_touched(tmp_path, way):
    path = tmp_path / "model"
    save(path, "A")
    with replace_folder(path) as folder:
        (folder / "shared").write_text("B")
        assert in_fork(lambda: save(path, "A")) == 0
        assert (folder / "shared").read_text() == "B"
        (folder / "b").write_text("B")
        (folder / "sub").mkdir()
        (folder / "sub" / "deep").write_text("B")
    assert state(path) == "B" and entries(path) == ["model"]


def test_one_of_several_savers_wins_as_a_whole(tmp_path, way):
    path, errors = tmp_path / "model", []
    save(path, "A")
    (path / "note.md").write_text("mine")

    def often(version):
        try:
            for _ in range(15):
                save(path, version)
        except Exception as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    savers = [threading.Thread(target=often, args=(version,)) for version in "AB"]
    for saver in savers:
        saver.start()
    while any(saver.is_alive() for saver in savers):
        with suppress(OSError):  # replaced too often
            assert load_whole(path, lambda: state(path)) in "AB"
    assert errors == [] and state(path) in "AB"
    assert entries(path) == ["model"] and (path / "note.md").read_text() == "mine"


# What fits together


@pytest.fixture
def parts():
    ids, titles = shop_items()["item_id"], shop_items()["title"]
    return tiny_model(random_catalogue(len(WORDS), [4, 4, 4])), MenderProcessor(
        word_tokenizer(), {"item_id": ids, "title": titles}
    )


def save_parts(path, model, processor, **settings):
    with replace_folder(path) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_record(folder, model, processor, **settings)


def test_the_digest_binds_items_and_not_weights(parts):
    model, processor = parts
    digest = item_digest(model, processor)
    for parameter in model.parameters():
        parameter.data += 1
    assert item_digest(model.half(), processor) == digest
    titles = list(processor.titles)
    for change in ({"title": [*titles[:-1], "\ud800"]}, {"item_id": [*processor.item_ids[:-1], "x"]}):
        items = {"item_id": processor.item_ids, "title": titles} | change
        assert item_digest(model, MenderProcessor(word_tokenizer(), items)) != digest
    model.item_codes[[0, 1]] = model.item_codes[[1, 0]]
    assert item_digest(model, processor) != digest


def test_a_folder_that_was_saved_whole_fits(parts, tmp_path):
    save_parts(tmp_path / "model", *parts, note="x")
    check_folder(tmp_path / "model", *parts)
    record = read_record(tmp_path / "model")
    assert record["note"] == "x" and "config.json" in record["files"] and "note.md" not in record["files"]


def test_folders_without_a_record_are_compared_by_their_numbers(parts, tmp_path):
    model, processor = parts
    check_folder(tmp_path, model, processor)
    with pytest.raises(ValueError, match="the model has 11 items and items.json 16"):
        check_folder(tmp_path, tiny_model(random_catalogue(11, [4, 4])), processor)


def test_items_of_another_model_are_refused(parts, tmp_path):
    model, processor = parts
    save_parts(tmp_path / "model", model, processor)
    processor.set_items({"item_id": processor.item_ids, "title": processor.titles[::-1]})
    with pytest.raises(ValueError, match=r"does not fit together: its items are not those that recommender\.json"):
        check_folder(tmp_path / "model", model, processor)


@pytest.mark.parametrize("kind", ["mender-fid", "mender-emb", "tiger"])
def test_parts_of_a_method_are_compared(tmp_path, tmp_path_factory, kind):
    method = small_method(kind, encoder_folder(tmp_path_factory.mktemp("encoder")))
    check_folder(tmp_path, method.model, method.processor)
    if kind == "tiger":
        method.processor.codes[2] = method.processor.codes[3]
        match = "items.json has other semantic IDs"
    else:
        method.model.encoder.config.num_states += 1
        match = "states of items"
    with pytest.raises(ValueError, match=match):
        check_folder(tmp_path, method.model, method.processor)


@pytest.mark.parametrize("kind", ["mender-emb", "mender-lite"])
def test_a_tokenizer_of_another_size_is_refused(tmp_path, tmp_path_factory, kind):
    """The rows of item states come after the tokens, so that a lost token would shift all items of a history."""
    method = small_method(kind, encoder_folder(tmp_path_factory.mktemp("encoder")))
    check_folder(tmp_path, method.model, method.processor)
    method.processor.tokenizer.add_tokens(["unheard-of"])
    with pytest.raises(ValueError, match="the tokenizer has .* tokens and the encoder expects"):
        check_folder(tmp_path, method.model, method.processor)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not the record"),
        ('{"format": 1, "digest": 3}', "is not the record"),
        ('{"format": 99, "digest": "x"}', "update mender"),
    ],
)
def test_other_records_are_refused(parts, tmp_path, content, message):
    (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        check_folder(tmp_path, *parts)
