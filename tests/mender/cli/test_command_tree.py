"""Every command of the tree: one name, one type and one help text per option; bad input ends in one line."""

from __future__ import annotations

import inspect
from typing import Annotated, Literal, NamedTuple, get_args, get_origin

import pytest
import typer

from mender import __version__
from mender.cli import GROUPS as GROUPED
from mender.cli import app, main

# Every option there is. An option with a new name has to be added here: is there none that says the same?
AGREED = set(
    """--allowed --approximator --at-most --avoid --axis --base-url --batch-size --beams --cache --classifier
    --columns --completion-price --concurrency --conditioning --data --dataset --device --dial --dry-run --dtype
    --encoder --eval-limit --exclude --figure --history --host --json --keep-seen --key-variable --language
    --license --limit --local --log-texts --margin --max-tokens --message --metric --min-item --min-user --model
    --name --option --output --overwrite --p-values --partial --patience --permitted --polarity --port --preference
    --preferences --preset --private --prompt --prompt-price --protocol --push --queue --quiet --ray --reference
    --repeats --replace --repo-id --report-to --requests-per-minute --resamples --response-format --results --resume
    --retries --revision --seed --set --shard-rows --showcase-histories --source --strict --targets --temperature
    --timeout --title --tokens-per-minute --top-k --top-p --train --tries --unknown-items --validation
    --validation-limit --version --wait --weight --workers""".split()
)


class Parameter(NamedTuple):
    """An option or argument of a command, as its signature declares it."""

    name: str
    kind: object
    info: typer.models.ParameterInfo
    required: bool

    @property
    def meaning(self):
        return self.kind, self.info.min, self.info.max, self.info.metavar, self.info.help


def parameters(callback):
    for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            kind, info = get_args(parameter.annotation)
            if type(None) in get_args(kind):  # whether an option may be left out is not part of its meaning
                kind = next(part for part in get_args(kind) if part is not type(None))
            declared = (info.default if isinstance(info.default, str) else None, *(info.param_decls or ()))
            shown = next((text for text in declared if text and text.startswith("--")), f"--{name.replace('_', '-')}")
            yield Parameter(shown, kind, info, parameter.default is parameter.empty)


def walk(group, path=()):
    """The function of every command and group below an application, by its path."""
    yield path, group.registered_callback.callback
    for command in group.registered_commands:
        yield (*path, command.name or command.callback.__name__), command.callback
    for child in group.registered_groups:
        yield from walk(child.typer_instance, (*path, child.name))


def below(path):
    """Paths of the commands of a group, relative to it."""
    return [other[len(path) :] for other in TREE if other[: len(path)] == path and other != path]


TREE = dict(walk(app))
GROUPS = [path for path, callback in TREE.items() if callback.__name__ == "about"]
OPTIONS = [
    (path, parameter)
    for path, callback in TREE.items()
    for parameter in parameters(callback)
    if isinstance(parameter.info, typer.models.OptionInfo)
]


def test_every_option_is_on_the_agreed_list():
    assert {option.name for _, option in OPTIONS} == AGREED


def test_an_option_means_the_same_everywhere():
    seen = {}
    for path, option in OPTIONS:
        assert seen.setdefault(option.name, option.meaning) == option.meaning, path


def test_every_command_and_option_has_a_help_text():
    for path, callback in TREE.items():
        assert callback.__doc__, path
        for parameter in parameters(callback):
            assert parameter.info.help.endswith((".", "...")), (path, parameter.name)


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_help_is_printed(path, mender):
    code, out, err = mender(*path, "--help")
    assert code == 0 and not err
    assert all(option.name in out for where, option in OPTIONS if where == path)


def test_commands_are_listed_by_task_on_narrow_terminals(mender, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = mender("--help")
    listed = out.split("Options:")[1]
    for heading, commands in GROUPED.items():
        names = [command.info.name if hasattr(command, "info") else command.__name__ for command in commands]
        section = listed.split(f"{heading}:")[1].split("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines() if line.startswith("  ") and line[2] != " "] == names
    assert max(map(len, out.splitlines())) <= 80 and "..." not in listed


@pytest.mark.parametrize("path", [path for path in TREE if path not in GROUPS], ids=" ".join)
def test_whatever_may_take_long_can_be_quiet(path):
    assert path == ("serve",) or "--quiet" in {option.name for where, option in OPTIONS if where == path}


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_unknown_options_end_in_one_line(path, mender):
    code, out, err = mender(*path, "--no-such-option")
    assert code == 2 and not out and err.count("\n") == 1
    assert err.startswith("error: ") and "--no-such-option" in err and "--help`" in err


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_a_command_without_what_it_needs_says_so(path, mender):
    if path in GROUPS:
        code, out, _ = mender(*path)
        assert code == 2 and "Usage: " in out and all(name in out for name, *more in below(path) if not more)
    elif any(parameter.required for parameter in parameters(TREE[path])):
        code, _, err = mender(*path)
        assert code == 2 and err.startswith("error: Missing ") and err.count("\n") == 1


LIMITED = [
    (path, option) for path, option in OPTIONS if option.info.min is not None or get_origin(option.kind) is Literal
]


@pytest.mark.parametrize(("path", "option"), LIMITED, ids=[f"{' '.join(path)} {one.name}" for path, one in LIMITED])
def test_values_outside_the_range_are_refused(path, option, mender):
    needed = [
        parameter for parameter in parameters(TREE[path]) if isinstance(parameter.info, typer.models.ArgumentInfo)
    ]
    code, _, err = mender(*path, *["x"] * len(needed), option.name, "-7")
    assert code == 2 and err.count("\n") == 1 and option.name in err and "-7" in err


def test_version_completion_and_misspelt_commands(mender, monkeypatch, capsys):
    assert mender("--version") == (0, f"mender {__version__}\n", "")
    code, _, err = mender("trian")
    assert code == 2 and "No such command 'trian'" in err
    monkeypatch.setenv("COMP_WORDS", "mender train --preset mender-")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_MENDER_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["mender-emb", "mender-fid", "mender-lite", "mender-tok"]
