"""Rules that choose weights of experts, compared on requests that the weights were not chosen on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_mender.training.scored_requests import ScoredRequests

SCRIPT = "weights"


def requests_of(script, users: np.ndarray, seed: int, groups):
    generator = torch.Generator().manual_seed(seed)
    count, items = len(users), 12
    number = torch.arange(count)[:, None].expand(count, items).float()  # says which request a row is
    scores = {"number": number, "noise": torch.randn(count, items, generator=generator)}
    targets = torch.randint(items, (count, 1), generator=generator)
    return script.Asked(ScoredRequests(scores, targets, torch.full((count, 1), -1), groups), users)


def test_rules_are_measured_on_users_that_they_did_not_see(script, monkeypatch):
    people = np.array([f"user-{number}" for number in range(120)])
    requests = {
        "silent": requests_of(script, people, 0, [("large", "")] * 120),
        "inferred": requests_of(script, people.repeat(2), 1, [("large", ""), ("small", "")] * 120),
    }
    shown, asked = [], []

    def rule(requests):
        shown.append((requests.scores["number"][:, 0].tolist(), requests.groups))
        return {"number": 0.0, "noise": float(len(requests.groups))}

    def reached(requests, weights):
        asked.append(len(requests.groups))
        return float(len(asked))

    monkeypatch.setattr(script, "RULES", {script.BASE: rule, script.TODAY: rule})
    monkeypatch.setattr(ScoredRequests, "reached", reached)
    monkeypatch.setattr(script, "as_log_probabilities", lambda weights, *_: weights)
    rows = script.measured(requests, 200, draws=3)
    assert [(row["kind"], row["rule"], row["fitted"]) for row in rows] == [
        *(("silent", name, 40) for name in (script.BASE, script.TODAY)),
        *(("inferred", name, 40) for name in (script.BASE, script.TODAY, "mean with silent")),
    ]
    assert asked == [60, 60, 120, 120, 120] * 3  # the other half of the users
    silent, _, inferred, again = shown[:4]
    assert inferred == again and inferred != shown[6]  # one draw for all rules
    assert sum(axis == "small" for axis, _ in inferred[1]) == 20
    assert {int(number) // 2 for number in inferred[0]} <= {*range(120)} and len({*silent[0]}) == 40
    base = next(row for row in rows if row["kind"] == "inferred")
    assert base["gain"] == 0 and base["error"] == 0
    others = [row for row in rows if row["kind"] == "inferred" and row["rule"] != script.BASE]
    assert [row["gain"] for row in others] == [1, 2]
    assert np.isclose(others[0]["value"] - base["value"], 1)


def test_users_of_one_half_never_reach_the_other(script, monkeypatch):
    people = np.array([f"user-{number}" for number in range(30)])
    own = {kind: requests_of(script, people, 0, [("axis", "")] * 30) for kind in ("silent", "inferred")}
    halves = []

    def numbers(requests) -> set[float]:
        return {*requests.scores["number"][:, 0].tolist()}

    monkeypatch.setattr(
        script,
        "RULES",
        dict.fromkeys(
            (script.BASE, script.TODAY),
            lambda requests: halves.append(numbers(requests)) or {"number": 1.0, "noise": 0.0},
        ),
    )
    measured = []
    monkeypatch.setattr(script, "as_log_probabilities", lambda weights, *_: weights)
    monkeypatch.setattr(ScoredRequests, "reached", lambda requests, _: measured.append(numbers(requests)) or 0.0)
    script.measured(own, 1000, draws=2)
    assert len(halves[0]) == 15 and halves[0] == halves[2] and all(not halves[0] & found for found in measured[:5])
    assert halves[0] != halves[4]


def test_the_mean_over_samples_trusts_what_helps(script):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(20, (100, 1), generator=generator)
    truth = torch.nn.functional.one_hot(targets[:, 0], 20).float()
    noise = torch.randn(2, 100, 20, generator=generator)
    scores = {"useful": noise[0] + 2 * truth, "useless": noise[1], "equal": torch.zeros(100, 20)}
    requests = ScoredRequests(scores, targets, torch.full((100, 1), -1), [("axis", "")] * 100)
    weights = script.of_samples(requests)
    assert weights["useful"] > 5 * weights["useless"] and weights["equal"] == 0
    # The likelihood is one half, the samples are the other.
    assert sum(weights[name] * requests.spread[name] for name in weights) == pytest.approx(2)
