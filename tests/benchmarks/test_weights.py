"""Rules that choose weights of experts, compared on requests that the weights were not chosen on."""

from __future__ import annotations

import numpy as np
import torch

SCRIPT = "weights"


def requests_of(script, users: np.ndarray, seed: int, groups):
    generator = torch.Generator().manual_seed(seed)
    count, items = len(users), 12
    number = torch.arange(count)[:, None].expand(count, items).float()  # says which request a row is
    scores = {"number": number, "noise": torch.randn(count, items, generator=generator)}
    targets = torch.randint(items, (count, 1), generator=generator)
    return script.Requests(scores, targets, torch.full((count, 1), -1), groups, users)


def test_rules_are_measured_on_users_that_they_did_not_see(script, monkeypatch):
    people = np.array([f"user-{number}" for number in range(120)])
    requests = {
        "silent": requests_of(script, people, 0, [("large", "")] * 120),
        "inferred": requests_of(script, people.repeat(2), 1, [("large", ""), ("small", "")] * 120),
    }
    shown, asked = [], []

    def rule(scores, targets, seen, groups):
        shown.append((scores["number"][:, 0].tolist(), groups))
        return {"number": 0.0, "noise": float(len(groups))}

    def reached(scores, targets, seen, groups):
        asked.append((len(groups), float(scores.abs().max() > 0)))
        return float(len(asked))

    monkeypatch.setattr(script, "RULES", {script.BASE: rule, script.TODAY: rule})
    monkeypatch.setattr(script, "mean_log_ndcg", reached)
    monkeypatch.setattr(script, "as_log_probabilities", lambda weights, *_: weights)
    rows = script.measured(requests, 200, draws=3)
    assert [(row["kind"], row["rule"], row["fitted"]) for row in rows] == [
        *(("silent", name, 40) for name in (script.BASE, script.TODAY)),
        *(("inferred", name, 40) for name in (script.BASE, script.TODAY, "mean with silent")),
    ]
    assert [count for count, _ in asked] == [60, 60, 120, 120, 120] * 3  # the other half of the users
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
    monkeypatch.setattr(
        script,
        "RULES",
        dict.fromkeys(
            (script.BASE, script.TODAY),
            lambda scores, *_: halves.append({*scores["number"][:, 0].tolist()}) or {"number": 1.0, "noise": 0.0},
        ),
    )
    measured = []
    monkeypatch.setattr(script, "as_log_probabilities", lambda weights, *_: weights)
    monkeypatch.setattr(script, "mean_log_ndcg", lambda scores, *_: measured.append({*scores[:, 0].tolist()}) or 0.0)
    script.measured(own, 1000, draws=2)
    assert len(halves[0]) == 15 and halves[0] == halves[2] and all(not halves[0] & found for found in measured[:5])
    assert halves[0] != halves[4]
