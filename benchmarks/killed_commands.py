"""Commands of `mender` that are killed at random moments, again and again, in one folder.

What is there after a kill must be the state before or after, and the same command must go on to its end. A command that
was killed is killed once more every other time before it may go on, so that resumed work is hit too. `kills.py` and
`tests/torture` have the commands.

A process of its own for every kill would import libraries for seconds. So each is a fork of one that has imported them
and done nothing else: `WarmProcesses`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

__all__ = ["WORKS", "WarmProcesses", "Work", "build_command", "run_work", "save_encoder"]

SHOP = ["--option", "num_items=40", "--option"]


# Processes


class WarmProcesses:
    """Starts commands in forks of a process that has imported what they need, one at a time.

    Args:
        environment: of the processes, beside that of this one.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        here = str(Path(__file__).parent)
        own = {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]), **(environment or {})}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", "import killed_commands; killed_commands.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | own,
        )
        self._child = 0

    def __enter__(self) -> WarmProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._parent.kill()
        self._parent.communicate()

    def start(self, words: list[str], log: Path) -> None:
        """Start a command. Its output goes to `log`, in whose folder it works."""
        self._parent.stdin.write(json.dumps([words, str(log)]) + "\n")
        self._parent.stdin.flush()
        self._child = int(self._parent.stdout.readline())

    def kill(self) -> None:
        """Kill the command, if it has not ended."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code of the command, once it has ended; negative if it was killed."""
        code, self._child = int(self._parent.stdout.readline()), 0
        return code

    def run(self, words: list[str], log: Path) -> int:
        """The exit code of a command."""
        self.start(words, log)
        return self.wait()


def serve() -> None:
    """Fork for every line that comes in. What a command has imported at its end is imported for those that follow."""
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    known = {*sys.modules}
    for line in sys.stdin:
        words, log = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run(words, Path(log), writing)
        os.close(writing)
        print(child, file=output)
        with os.fdopen(reading) as pipe:
            imported = pipe.read().split()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=output)
        for name in [name for name in imported if name not in known]:
            # Some modules are there under names by which they cannot be imported.
            with suppress(BaseException):
                import_module(name)
        known |= {*imported}


def _run(words: list[str], log: Path, imported: int) -> None:
    """Be the process of one command, to its end."""
    from mender.cli import main

    file, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
    for number, handle in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(number, handle)
    os.chdir(log.parent)
    code = push(*words[1:]) if words[0] == "push" else main(words)
    with os.fdopen(imported, "w") as pipe:
        pipe.write("\n".join(sys.modules))
    sys.exit(code)


def push(folder: str, repo_id: str) -> None:
    """Push a saved recommender, for which `mender` has no command."""
    from mender import Recommender

    Recommender.from_pretrained(folder, device="cpu").push_to_hub(repo_id)


# Kills


@dataclass(frozen=True)
class Work:
    """Work that is killed again and again in one folder.

    Attributes:
        command: the words of `mender` for the work, by folder and version.
        state: the version that a folder holds; raises an error if it is none.
        versions: that it leads from and to; they change places, or `fresh` leads to the first one again.
        fresh: removes what is there before each time, if it has to.
        environment: of the process, beside that of this one.
    """

    command: Callable[[Path, str], list[str]]
    state: Callable[[Path], str]
    versions: tuple[str, str]
    fresh: Callable[[Path], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def run_work(work: Work, kills: int, seed: int, root: Path) -> Counter[str]:
    """Outcomes of so many kills.

    Args:
        work: what is killed.
        kills: how often.
        seed: of the moments.
        root: a folder for it.

    Returns:
        Kills by what was there afterwards: "as before", "as after" or "lost". Times that the work, done again, did not
        end well: "stuck". Kills of work that went on after a kill: "again".
    """
    chance, found, log = random.Random(seed), Counter(), root / "log.txt"
    before, after = work.versions
    with WarmProcesses(work.environment) as processes:

        def finish(version: str) -> float:
            """Do the work to its end; returns seconds."""
            processes.start(work.command(root, version), log)
            started = time.perf_counter()
            code = processes.wait()
            seconds = time.perf_counter() - started
            try:
                problem = "" if code == 0 and work.state(root) == version else f"ended with {code}"
            except (OSError, ValueError, RuntimeError) as error:
                problem = str(error)
            if problem:
                found["stuck"] += 1
                print(f"stuck: {problem}\n{log.read_text()[-2_000:]}", file=sys.stderr)
            return seconds

        def turn() -> None:
            """Make room for the next time."""
            nonlocal before, after
            if work.fresh is None:
                before, after = after, before
            else:
                work.fresh(root)

        # The first one imports libraries; the second shows how long the work takes.
        finish(after)
        turn()
        seconds = finish(after)
        turn()
        killed = False
        for _ in range(kills):
            found["again"] += killed
            processes.start(work.command(root, after), log)
            time.sleep(chance.uniform(0, seconds))
            processes.kill()
            processes.wait()
            killed = False
            try:
                state = work.state(root)
                found["as after" if state == after else "as before" if state == before else "lost"] += 1
                killed = state == before and chance.random() < 0.5
            except (OSError, ValueError, RuntimeError) as error:
                print(f"lost: {error}", file=sys.stderr)
                found["lost"] += 1
            if not killed:
                finish(after)
                turn()
        if killed:
            finish(after)
    return found


# What is killed


def save_encoder(path: Path) -> None:
    """A text encoder with random weights, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=300, **shape)).save_pretrained(path)
    characters = {"[PAD]": 0, "[UNK]": 1, **{chr(code): code for code in range(33, 127)}}
    tokenizer = Tokenizer(models.WordLevel(characters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)


def build_command(root: Path, users: str) -> list[str]:
    """Build the corner shop with so many users."""
    words = ["benchmark", "build", "corner-shop", *SHOP, f"num_users={users}"]
    return [*words, "--encoder", str(root / "encoder"), "--output", str(root / "shop")]


def built(root: Path) -> str:
    """Users of the benchmark that is there, whole."""
    from preference_benchmark import load
    from preference_benchmark.hub.folder import contents, problems

    load(root / "shop")
    if wrong := problems(root / "shop"):
        raise ValueError(wrong[0])
    (found,) = contents(root / "shop")
    return str(found.statistics["read"]["before"]["users"])


def train_command(root: Path, version: str) -> list[str]:
    """Train, or go on from the last checkpoint."""
    words = ["train", "--preset", "mender-tok", "--source", "corner-shop", "--data", str(root / "shop")]
    words += ["--encoder", str(root / "encoder"), "--output", str(root / "run"), "--validation-limit", "8"]
    words += ["--set", "decoder={num_layers: 1, d_ff: 32}", "--train", "num_train_epochs=2"]
    words += ["--train", "save_strategy=steps", "--train", "save_steps=5", "--train", "eval_strategy=no"]
    checkpoints = (root / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")
    return words + (["--resume"] if any(checkpoints) else [])


def trained(root: Path) -> str:
    """Whether there is a model, which then has to load."""
    from mender.saved_models import load_saved

    if not (root / "run" / "model").exists():
        return "none"
    load_saved(root / "run" / "model", "cpu")
    return "model"


WORKS = {
    "build": Work(build_command, built, ("60", "61")),
    "train": Work(train_command, trained, ("none", "model"), lambda root: shutil.rmtree(root / "run")),
}
