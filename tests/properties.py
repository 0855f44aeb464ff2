"""How many examples a property is tried on.

By default, hypothesis tries the same examples in every run, so that no run fails by chance. The profile "thorough"
draws new ones, and many more:

    pytest -m hypothesis --hypothesis-profile thorough
"""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing where other work shares the machine.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("thorough", deadline=None, derandomize=False, max_examples=2000, print_blob=True)


def tries(count: int, **options) -> settings:
    """Settings of a property that is slower than others: `count` examples, more in the profile "thorough"."""
    return settings(max_examples=max(1, count * settings().max_examples // 100), **options)
