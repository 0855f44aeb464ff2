"""Random requests to a catalogue that is edited at random, against brute force over generator and experts.

A plain dictionary follows the edits, so that items, filters and names of what is to be avoided are known by another
hand. Every item's score is computed by the plain forward pass, one item at a time. An exact answer must be the best of
these scores; a narrower search must return items of those allowed, as many as there are, each with its score.
"""

from __future__ import annotations

import random

import pytest
import torch
from doubles import WORDS, shop_items
from small_shops import shop_of
from test_guide import brute_force

from mender import Recommender

CLOSE = 2e-3
MOST_ITEMS = 22


def words(chance: random.Random, count: int) -> list[str]:
    return chance.choices(WORDS[4:], k=count)


class Catalogue:
    """What a shop sells, as a dictionary: id to title, text and aspects."""

    def __init__(self, chance: random.Random, shop: Recommender) -> None:
        self.chance, self.shop = chance, shop
        columns = shop_items()
        rows = zip(columns["item_id"], columns["title"], columns["text"], strict=True)
        self.items = {item: (title, text, []) for item, title, text in rows}
        self.ever = list(self.items)
        self.number = 0

    def edit(self) -> str:
        """One edit, of both."""
        kinds = ["update", "observe"]
        kinds += ["add"] * (len(self.items) < MOST_ITEMS) + ["remove"] * (len(self.items) > 4)
        kind = self.chance.choice(kinds)
        try:
            getattr(self, kind)()
        except ValueError as error:
            if "fit codes again" not in str(error):
                raise
            return "refused, for want of room"
        return kind

    def add(self) -> None:
        self.number += 1
        title, aspects = " ".join(words(self.chance, 2)), words(self.chance, self.chance.randrange(3))
        item = {"item_id": f"new-{self.number}", "title": title, "aspects": aspects}
        text = ". ".join([title, *aspects])
        if self.chance.random() < 0.5:
            text = item["text"] = " ".join(words(self.chance, 4))
        self.shop.add_items([item])  # first: nothing changes where it is refused
        self.items[item["item_id"]] = (title, text, aspects)
        self.ever.append(item["item_id"])

    def remove(self) -> None:
        gone = self.chance.sample(sorted(self.items), self.chance.randrange(1, 3))
        self.shop.remove_items(gone)
        for item in gone:
            del self.items[item]

    def update(self) -> None:
        item = self.chance.choice(sorted(self.items))
        title, text = " ".join(words(self.chance, 2)), " ".join(words(self.chance, 3))
        aspects = words(self.chance, self.chance.randrange(3))
        self.shop.update_items([{"item_id": item, "title": title, "text": text, "aspects": aspects}])
        self.items[item] = (title, text, aspects)

    def observe(self) -> None:
        items = self.chance.sample(sorted(self.items), 2)
        self.shop.observe([(f"user-{self.chance.randrange(20)}", item) for item in items])

    def naming(self, word: str) -> set[str]:
        """Items that name a word."""
        return {
            item
            for item, (title, text, aspects) in self.items.items()
            if word in " ".join([title, text, *aspects]).replace(".", " ").split()
        }

    def request(self) -> dict:
        chance = self.chance
        some = sorted(self.items)
        history = chance.sample(self.ever, chance.randrange(4))
        wanted = " ".join(words(chance, chance.randrange(1, 4)))
        request = {"history": history, chance.choice(["preference", "inferred"]): wanted}
        if history and chance.random() < 0.3:
            request = {"history": history}
        if chance.random() < 0.3:
            request["avoid"] = [chance.choice([word for word in WORDS[4:] if word not in wanted.split()])]
            request["strict"] = chance.random() < 0.5
        if chance.random() < 0.3:
            request["exclude"] = chance.sample(self.ever, chance.randrange(1, 5))
        if chance.random() < 0.3:
            request["allowed"] = chance.sample(some, chance.randrange(1, len(some) + 1))
        if chance.random() < 0.2:
            request["prior"] = {item: chance.uniform(-5, 5) for item in chance.sample(some, 3)}
        if chance.random() < 0.2:
            request["weights"] = {
                chance.choice(["popularity", "dense", "terms", "generator"]): chance.choice([0.0, 2.0])
            }
        return request

    def left(self, request: dict) -> set[str]:
        """Ids that may be returned."""
        left = {*self.items} & {*request.get("allowed", self.items)} - {*request.get("exclude", ())}
        return left - self.naming(request["avoid"][0]) if request.get("strict") else left


def scores(shop: Recommender, request: dict) -> dict[str, float]:
    """The score of every item that is not removed, by brute force."""
    named = {name: request[name] for name in ("inferred", "avoid") if name in request}
    inputs = shop.processor(request.get("preference"), request["history"], **named)
    kind = inputs.get("kind", torch.tensor([0]))
    total = brute_force(shop.model, inputs, kind, request.get("weights"))[0]
    found = dict(zip(shop.processor.item_ids, total.tolist(), strict=True))
    return {item: value + request.get("prior", {}).get(item, 0.0) for item, value in found.items() if value > -1e9}


def complaint(answer: list[dict], expected: dict[str, float], left: set[str], top_k: int, exact: bool) -> str:
    """What is wrong with an answer; empty if nothing is."""
    ids = [item["item_id"] for item in answer]
    if not {*ids} <= left or len({*ids}) < len(ids):
        return f"items that are not allowed, or one twice: {ids}"
    if len(ids) != min(top_k, len(left)):
        return f"{len(ids)} items instead of {min(top_k, len(left))}"
    if any(abs(item["score"] - expected[item["item_id"]]) > CLOSE for item in answer):
        return f"scores {[(item['item_id'], item['score'], expected[item['item_id']]) for item in answer]}"
    found = [item["score"] for item in answer]
    if found != sorted(found, reverse=True):
        return "not the best first"
    best = sorted((expected[item] for item in left), reverse=True)[: len(ids)]
    if exact and any(abs(a - b) > CLOSE for a, b in zip(found, best, strict=True)):
        return f"not the best: {found} instead of {best}"
    return ""


@pytest.mark.campaign("requests", 40)
def test_requests_between_edits(tally, tmp_path):
    chance = random.Random(tally.seed)
    catalogue = Catalogue(chance, shop_of("mender", tmp_path / "0"))
    edits = 0
    while tally.tried < tally.count:
        shop, done = catalogue.shop, catalogue.edit()
        edits += 1
        listed = {
            item["item_id"]: (item["title"], item.get("text", item["title"]), item.get("aspects", []))
            for item in shop.items
        }
        tally.check(listed == catalogue.items, f"after {done}: items {listed} instead of {catalogue.items}")
        tally.note(f"edits: {done}")
        for _ in range(3):
            request = catalogue.request()
            left, top_k, exact = catalogue.left(request), chance.randrange(1, 30), chance.random() < 0.5
            try:
                answer = shop.recommend(**request, top_k=top_k, num_beams="exact" if exact else None)
            except ValueError as error:
                tally.check(not left and "no item is left" in str(error), f"{request}: {error}")
                tally.note("refused because no item was left")
                continue
            tally.check(
                not (message := complaint(answer, scores(shop, request), left, top_k, exact)), f"{request}: {message}"
            )
            tally.note("exact" if exact else "by beams")
        if edits % 50 == 0:  # the table of items grows by every one that ever was
            catalogue = Catalogue(chance, shop_of("mender", tmp_path / str(edits)))
    tally.finish()
