"""Many threads ask while others edit the catalogue, and switch every microsecond: no answer is of two versions.

One editor writes a number into all titles at once, others add and remove items in pairs, one counts purchases. An
answer with all items shows at once whether two versions were mixed. Where no edit came in between, the answer is
computed again afterwards, alone.
"""

from __future__ import annotations

import random
import sys
import threading

import pytest
from small_shops import IDS, shop_of

from mender import Recommender

SWITCH_SECONDS = 1e-6
ASKING, PAIRS_OF = 4, 2
KEPT = 40


@pytest.fixture
def shop(tmp_path):
    return shop_of("mender", tmp_path)


def mixed(found: list[dict], scored: bool = True) -> str:
    """What shows that an answer with all items is of two versions; empty if nothing does."""
    ids = [item["item_id"] for item in found]
    numbers = {item["title"].rpartition(" v")[2] for item in found if item["item_id"] in IDS}
    halves = [{name[5:] for name in ids if name.startswith(side)} for side in ("left-", "rght-")]
    scores = [item["score"] for item in found] if scored else []
    if len({*ids}) < len(ids) or scores != sorted(scores, reverse=True):
        return f"an item twice, or out of order: {ids}"
    if not {*IDS} <= {*ids}:
        return f"items are missing: {sorted({*IDS} - {*ids})}"
    if len(numbers) != 1 or halves[0] != halves[1]:
        return f"two versions: titles of {sorted(numbers)}, pairs {halves}"
    return ""


class Campaign:
    """Threads that share a recommender, and what they found."""

    def __init__(self, shop: Recommender, tally) -> None:
        self.shop, self.tally = shop, tally
        self.edits, self.done = 0, threading.Event()
        self.lock = threading.Lock()
        self.again: list[tuple] = []  # versions, requests and answers to compute again

    def counted(self) -> bool:
        """Count an edit; whether there are more to come."""
        with self.lock:
            self.edits += 1
            if self.edits >= self.tally.count:
                self.done.set()
        return not self.done.is_set()

    def run(self, work, *given) -> None:
        try:
            work(*given)
        except Exception as error:  # any error here is what is looked for
            self.tally.check(False, f"{work.__name__}: {type(error).__name__}: {error}")
            self.done.set()

    def ask(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            request = {
                "preference": chance.choice(["strong tea", "gentle lamp", "rose [PAD] mint", "qwertz"]),
                "history": chance.sample(IDS, 3),
                "avoid": chance.choice([None, "soap"]),
                "top_k": 200,
                "num_beams": chance.choice([None, "exact"]),
            }
            before = self.shop._version
            found = self.shop.recommend(**request)
            message = mixed(found) or mixed(self.shop.items, scored=False)
            with self.lock:
                self.tally.note("answers")
                if message:
                    self.tally.check(False, message)
                if before is self.shop._version and (len(self.again) < KEPT or not chance.randrange(50)):
                    self.again = [*self.again[-KEPT:], (before, request, found)]

    def retitle(self) -> None:
        number = 0
        while True:
            number += 1
            self.shop.update_items([{"item_id": item, "title": f"{item[5:]} v{number}"} for item in IDS])
            if not self.counted():
                return

    def add_and_remove(self, editor: int) -> None:
        number = 0
        while True:
            number += 1
            pair = [f"{side}-{editor}.{number}" for side in ("left", "rght")]
            self.shop.add_items([{"item_id": name, "title": "mint soap"} for name in pair])
            more = self.counted()
            self.shop.remove_items(pair)
            if not (self.counted() and more):
                return

    def count_purchases(self) -> None:
        while self.shop.observe([("somebody", IDS[0]), ("somebody", IDS[1])]) and self.counted():
            pass


@pytest.mark.campaign("edits", 30)
def test_requests_among_edits(shop, tally):
    shop.update_items([{"item_id": item, "title": f"{item[5:]} v0"} for item in IDS])
    campaign = Campaign(shop, tally)
    work = [(campaign.ask, tally.seed + place) for place in range(ASKING)]
    work += [(campaign.retitle,), (campaign.count_purchases,)]
    work += [(campaign.add_and_remove, place) for place in range(PAIRS_OF)]
    threads = [threading.Thread(target=campaign.run, args=each, daemon=True) for each in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=3_000)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    tally.tried += campaign.edits
    for version, request, found in campaign.again:
        alone = Recommender(version.model, version.processor, settings=version.settings)
        expected = alone.recommend(**request)
        same = [item["item_id"] for item in found] == [item["item_id"] for item in expected]
        close = all(abs(a["score"] - b["score"]) < 1e-4 for a, b in zip(found, expected, strict=False))
        tally.check(same and close, f"another answer alone: {request}")
        tally.note("answers computed again")
    # Edits of all threads are there: none was lost.
    status = shop.status
    observed = len(shop._version.purchases["somebody"])
    tally.check(status["observed"] == observed, f"{observed} purchases are kept and {status['observed']} counted")
    tally.check(status["items"] == len(IDS), f"{status['items']} items are left, not {len(IDS)}")
    tally.finish()
    assert tally.notes["answers"] > ASKING
