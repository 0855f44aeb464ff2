"""Rules that choose weights of experts, compared on requests that the weights were not chosen on."""

from __future__ import annotations

import numpy as np
import torch

SCRIPT = "weights"


def test_rules_are_measured_on_requests_that_they_did_not_see(script, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    users, items = 120, 12
    targets = torch.randint(items, (users, 1), generator=generator)
    number = torch.arange(users)[:, None].expand(users, items).float()  # says which request a row is
    scores = {"number": number, "noise": torch.randn(users, items, generator=generator)}
    groups = [("large", "")] * 100 + [("small", "")] * 20
    shown, asked = [], []

    def rule(scores, targets, seen, groups):
        shown.append((scores["number"][:, 0].tolist(), groups))
        return {"number": 0.0, "noise": 1.0}

    def reached(scores, targets, seen, groups):
        asked.append(len(groups))
        return float(len(asked))

    monkeypatch.setattr(script, "RULES", {script.BASE: rule, "other": rule})
    monkeypatch.setattr(script, "mean_log_ndcg", reached)
    rows = script.measured(scores, targets, torch.full((users, 1), -1), groups, 60, draws=3)
    for numbers, own in shown:
        assert len({*numbers}) == 40 and sum(axis == "large" for axis, _ in own) == 30
    assert asked == [80] * 6
    assert shown[0] == shown[1] and shown[0] != shown[2]  # one draw for all rules
    base, other = rows
    assert base["gain"] == 0 and base["error"] == 0
    assert other["gain"] == 1 and np.isclose(other["value"] - base["value"], 1)
