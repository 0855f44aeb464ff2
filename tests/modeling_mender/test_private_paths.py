"""Commands in cards: words stay, folders of the machine go, wherever in a word they stand."""

from __future__ import annotations

import shlex

import pytest

from modeling_mender.private_paths import without_paths


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("mender train --data /home/anna/shop --seed 1", "mender train --data shop --seed 1"),
        ("train --data=/home/anna/shop", "train --data=shop"),
        ("train --data '/home/anna/my shop'", "train --data 'my shop'"),
        ("train '--data=/home/anna/my shop/'", "train '--data=my shop'"),
        (r"train --data /home/anna/my\ shop", "train --data 'my shop'"),
        ("train --set encoder=/home/anna/enc", "train --set encoder=enc"),
        ("train --set a=/home/anna/x,b=/home/anna/y,c=3", "train --set a=x,b=y,c=3"),
        ("train --paths /home/anna/x:/home/anna/y", "train --paths x:y"),
        ("/home/anna/.venv/bin/python /home/anna/train.py", "python train.py"),
        ("train --data ~/shop --out=~anna/run --home ~anna", "train --data shop --out=run --home '~'"),
        ("train -d/home/anna/shop", "train -dshop"),
        (r"train --data C:\Users\anna\shop", "train --data shop"),
        (r"train --data='C:\Users\anna\my shop'", "train '--data=my shop'"),
        ("train --data=d:/anna/shop", "train --data=shop"),
        (r"train --data \\server\anna\shop", "train --data shop"),
        ("train --data file:///home/anna/shop", "train --data shop"),
        ("sh -c 'train --data /home/anna/shop'", "sh -c 'train --data shop'"),
        ("train --data /home/anna's/shop", "train --data shop"),
    ],
)
def test_paths_are_cut_to_their_last_part(command, expected):
    assert without_paths(command) == expected
    assert "anna" not in without_paths(command)


@pytest.mark.parametrize(
    "words",
    [
        ["python", "examples/02_train.py", "--data", "data/shop", "--k", "5"],
        ["train", "--url", "https://example.org/a/b", "--from", "hf://datasets/org/shop", "--set", "encoder=org/small"],
        ["recommend", "--preference", "it's and/or a # tea | cup, 3 / 4", ""],
    ],
)
def test_everything_else_stays_word_for_word(words):
    assert shlex.split(without_paths(shlex.join(words))) == words
