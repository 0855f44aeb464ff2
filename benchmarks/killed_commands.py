"""Commands of `mender` that are killed at random moments, again and again, in one folder.

What is there after a kill must be the state before or after, and the same command must go on to its end. A command that
was killed is killed once more every other time before it may go on, so that resumed work is hit too. `kills.py` and
`tests/torture` have the commands.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from warm_processes import WarmProcesses

__all__ = ["MODULES", "WORKS", "Work", "build_command", "command", "push", "run_work", "save_encoder"]

MODULES = ("mender.recommender", "preference_benchmark")
"""What most commands import."""
SHOP = ["--option", "num_items=40", "--option"]


def command(*words: str) -> int:
    """The exit code of a command of `mender`."""
    from mender.cli import main

    return main(list(words))


def push(folder: str, repo_id: str) -> None:
    """Push a saved recommender, for which `mender` has no command."""
    from mender import Recommender

    Recommender.from_pretrained(folder, device="cpu").push_to_hub(repo_id)


@dataclass(frozen=True)
class Work:
    """Work that is killed again and again in one folder.

    Attributes:
        words: the words of `mender` for the work, or what `function` takes, by folder and version.
        state: the version that a folder holds; raises an error if it is none.
        versions: that it leads from and to; they change places, or `fresh` leads to the first one again.
        fresh: removes what is there before each time, if it has to.
        environment: of the process, beside that of this one.
        function: does the work.
    """

    words: Callable[[Path, str], list[str]]
    state: Callable[[Path], str]
    versions: tuple[str, str]
    fresh: Callable[[Path], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    function: str = "killed_commands.command"


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
    with WarmProcesses(MODULES, work.environment) as processes:

        def finish(version: str) -> float:
            """Do the work to its end; returns seconds."""
            processes.start(work.function, work.words(root, version), log)
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
            processes.start(work.function, work.words(root, after), log)
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
    words += [
        "--encoder",
        str(root / "encoder"),
        "--output",
        str(root / "run"),
        "--validation-limit",
        "8",
        "--eval-limit",
        "4",
    ]
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
