"""Whether a model can be had here, found out within a second: before anything slow is imported, read or computed.

Libraries that load models ask the Hub many times, with pauses, before they give up; that takes a minute for each model.
This module imports nothing that is slow itself.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["ENCODER_REMEDY", "PAPER_CLASSIFIER", "RULES", "check_classifier", "check_model", "hub_problem"]

PAPER_CLASSIFIER = "siebert/sentiment-roberta-large-english"
"""Decides the sentiment of reviews and preferences in Preference Discerning (Paischer et al. 2025); 1.4 GB."""
RULES = "rules"
"""In the place of a classifier: ratings, VADER and the first word of a preference decide."""
ENCODER_REMEDY = "Leave it out for the default encoder, pass a folder with a copy of it, or connect to the Hub once."
SECONDS = 3.0
"""How long the Hub may take to accept a connection. Without a network, the answer takes milliseconds."""


def check_classifier(name_or_path: str | None) -> None:
    """Check that a sentiment classifier is here or can be downloaded.

    Args:
        name_or_path: a folder, or a name on the Hub. None and "rules": there is nothing to check.

    Raises:
        FileNotFoundError: if it cannot be had; says what can be done.
    """
    if name_or_path not in (None, RULES):
        size = " (1.4 GB)" if name_or_path == PAPER_CLASSIFIER else ""
        check_model(
            "classifier",
            name_or_path,
            f"Let rules decide the sentiment (--classifier {RULES}; in Python classifier={RULES!r}), pass a folder "
            f"with a copy of the model (--classifier FOLDER), or connect to the Hub once{size}.",
        )


def check_model(what: str, name_or_path: str, remedy: str) -> None:
    """Check that a model is here or can be downloaded.

    Args:
        what: of the model, for the message.
        name_or_path: a folder, or a name on the Hub.
        remedy: what to do if it is neither, one sentence.

    Raises:
        FileNotFoundError: if it cannot be had.
    """
    if Path(name_or_path).is_dir() or _is_cached(name_or_path):
        return
    if _is_name(name_or_path):
        problem = hub_problem()
        if not problem:
            return
        reason = f"it is not in the Hub's cache, and {problem}"
    else:
        reason = "there is no such folder, and it is not a name on the Hub"
    raise FileNotFoundError(f"the {what} {name_or_path!r} cannot be loaded: {reason}. {remedy}")


def hub_problem() -> str:
    """Why the Hub cannot be asked, in a few words; empty if it can."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host, port = _first_hop(constants.ENDPOINT)
    error = [f"no answer within {SECONDS:.0f} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=SECONDS).close()
            error[0] = ""
        except OSError as refused:
            error[0] = refused.strerror or type(refused).__name__

    # The look-up of a name has no time limit of its own, and nothing waits for this thread at the end.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return f"{host} cannot be reached ({error[0]})" if error[0] else ""


def _first_hop(address: str) -> tuple[str, int]:
    """Host and port of the server, or of the proxy that stands before it."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if proxy and parts.hostname and not proxy_bypass(parts.hostname):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_name(text: str) -> bool:
    """Whether the Hub could have a model of this name: NAME or ORGANISATION/NAME."""
    parts = text.split("/")
    return len(parts) <= 2 and all(part.strip(".~") and os.sep not in part for part in parts)


def _is_cached(name: str) -> bool:
    """Whether the Hub's cache holds files of a model."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / "--".join(["models", *name.split("/")])
    return any(folder.glob("snapshots/*/config.json"))
