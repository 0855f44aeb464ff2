"""What an OpenAI-compatible server can do, and which prompt fits its model.

A server is looked at before it is asked about anybody: which model it reports, how large that is, how many requests it
runs at once, whether it knows chat, JSON schemas and grammars. Lists of models differ in what they say, so whatever is
missing is found out with a short question about invented purchases.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from preference_benchmark.embedding import Unavailable
from preference_benchmark.preferences.llm.parsing import entries
from preference_benchmark.preferences.llm.prompts import PROMPTS, Prompt

__all__ = [
    "AUTO",
    "RESPONSE_FORMATS",
    "SMALL",
    "ServerFeatures",
    "assumed_prompt",
    "look_at",
    "parameters_in",
    "prompt_for",
    "said",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
RESPONSE_FORMATS = ("json_schema", "json_object", "text")
# Below this many parameters chat models do not follow the instruction for five preferences (docs/preferences.md).
SMALL = 2e9
_SECONDS = 10.0
_TRIAL_SECONDS = 300.0
_SUFFICIENT = 5
_INVENTED = (
    '{"item":"Quiet desk fan","rating":5,"review":"So quiet that I sleep next to it, and it folds flat."}\n'
    '{"item":"Steel water bottle","rating":2,"review":"Keeps water cold, but the lid leaks in my bag."}\n'
    '{"item":"Linen bed sheet","rating":4,"review":"Cool in summer, soft after two washes. Creases easily."}'
)


@dataclass(frozen=True)
class ServerFeatures:
    """What is known of a server.

    Attributes:
        model: name of the model that answers, as the server reports it; None if it reports none.
        parameters: of the model; None if unknown.
        slots: requests that it runs at the same time; None if unknown.
        grammar: whether answers can be held to a grammar (llama.cpp).
        chat: whether it answers chats; otherwise texts are continued.
        response_format: the most that it knows of `RESPONSE_FORMATS`.
    """

    model: str | None = None
    parameters: float | None = None
    slots: int | None = None
    grammar: bool = False
    chat: bool = True
    response_format: str = "json_schema"

    def __str__(self) -> str:
        size = f", {self.parameters / 1e6:,.0f} million parameters" if self.parameters else ""
        slots = f", {self.slots} at once" if self.slots else ""
        form = "grammar" if self.grammar else self.response_format
        return f"{self.model or 'unnamed model'}{size}{slots}; {'chat' if self.chat else 'no chat'}, answers as {form}"


def look_at(
    model: str, base_url: str | None = None, api_key: str | None = None, *, timeout: float = _SECONDS
) -> ServerFeatures:
    """What a server says about itself; nothing is asked of the model, and a silent server gives what is common.

    Args:
        model: as it was typed.
        base_url: such as "http://127.0.0.1:8000/v1"; default: the environment's OPENAI_BASE_URL, else OpenAI's.
        api_key: default: the environment's OPENAI_API_KEY.
        timeout: seconds to wait for each answer.

    Raises:
        ValueError: if `base_url` is not an address.
    """
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url={base_url!r} is not an address; pass one such as http://127.0.0.1:8000/v1.")
    logger.info("looking at the server")
    listed = _get(base_url, api_key, "models", timeout)
    records = [record for record in _list(listed, "data") if isinstance(record, Mapping) and record.get("id")]
    own = [record for record in records if model in (record["id"], *_list(record, "aliases"))]
    # A server with one model answers to any name.
    record = own[0] if own else records[0] if len(records) == 1 else {}
    meta = record.get("meta") if isinstance(record.get("meta"), Mapping) else {}
    parameters = meta.get("n_params") if isinstance(meta.get("n_params"), int | float) else None
    name = _shown(str(record["id"])) if record else None
    llama = record.get("owned_by") == "llamacpp"
    properties = _get(base_url, api_key, "../props", timeout) if llama else {}
    slots = properties.get("total_slots")
    return ServerFeatures(
        model=f"{name} ({parameters / 1e6:.0f}M)" if name and parameters else name,
        parameters=parameters or parameters_in(name or model),
        slots=slots if isinstance(slots, int) and slots > 0 else None,
        grammar=llama,
    )


def assumed_prompt(features: ServerFeatures, **_: object) -> tuple[Prompt, ServerFeatures, str]:
    """What `prompt_for` most likely returns, without a question to the model."""
    name = "one-review" if _small(features) else "instruct"
    return PROMPTS[name], features, "assumed: the model is not asked in a dry run"


def _small(features: ServerFeatures) -> bool:
    return features.parameters is not None and features.parameters < SMALL


def prompt_for(
    features: ServerFeatures, model: str, base_url: str | None = None, api_key: str | None = None
) -> tuple[Prompt, ServerFeatures, str]:
    """The prompt that fits a server's model, what was found out about the server, and why the prompt was chosen.

    Raises:
        Unavailable: if the server answers neither chats nor texts.
    """
    from openai import APIStatusError, OpenAI, OpenAIError

    key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
    client = OpenAI(base_url=base_url, api_key=key, timeout=_TRIAL_SECONDS, max_retries=1)
    logger.info("asking the server which prompt fits its model")
    small = _small(features)
    formats = ("text",) if small else RESPONSE_FORMATS
    refusals = []
    for form in formats:
        try:
            answer = _trial(client, model, form, tokens=1 if small else 400)
        except APIStatusError as error:
            if error.status_code in (401, 402, 403) or error.status_code >= 500 and error.status_code != 501:
                raise Unavailable(f"the server answered {error.status_code}: {said(error)}") from error
            refusals.append(f"{error.status_code}: {said(error)}")
            continue
        except OpenAIError as error:
            where = base_url or os.environ.get("OPENAI_BASE_URL") or "OpenAI"
            raise Unavailable(f"{where} does not answer ({error}); start the server, or check the address.") from error
        found = replace(features, response_format=form)
        if small:
            why = f"a chat model of {features.parameters / 1e6:,.0f} million parameters"
            return PROMPTS["one-review"], replace(features, response_format="text"), why
        if len(entries(answer)) >= _SUFFICIENT:
            return PROMPTS["instruct"], found, f"a trial gave five preferences ({form})"
        return PROMPTS["one-review"], found, "a trial of instruct did not give five preferences"
    try:
        client.completions.create(model=model, prompt="Find", max_tokens=1)
    except OpenAIError as error:
        raise Unavailable(
            f"the server answers neither chats ({refusals[0]}) nor texts ({error}); check the model's name and the "
            "address, which usually ends in /v1."
        ) from error
    return PROMPTS["few-shot"], replace(features, chat=False, response_format="text"), f"no chat ({refusals[0]})"


def parameters_in(name: str) -> float | None:
    """The number of parameters that a model's name states.

    >>> parameters_in("meta-llama/Llama-3.1-70B-Instruct"), parameters_in("SmolLM2-135M"), parameters_in("gpt-x")
    (70000000000.0, 135000000.0, None)
    """
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?) ?([mMbB])(?![a-zA-Z0-9])", name.replace("-", " ").replace("_", " "))
    return max((float(number) * (1e9 if unit in "bB" else 1e6) for number, unit in found), default=None)


def _trial(client: Any, model: str, form: str, tokens: int) -> str:
    prompt = PROMPTS["instruct"]
    options: dict[str, Any] = {}
    if form == "json_schema":
        schema = {"name": "preferences", "schema": prompt.schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form == "json_object":
        options["response_format"] = {"type": "json_object"}
    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=list(prompt.messages(_INVENTED)), max_tokens=tokens, temperature=0.0, **options
    )
    try:
        content = json.loads(answer.content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _get(base_url: str | None, api_key: str | None, path: str, timeout: float) -> dict[str, Any]:
    """A JSON object from the server; empty if there is none."""
    import httpx

    address = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    key = api_key or os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(httpx.URL(address.rstrip("/") + "/").join(path), headers=headers, timeout=timeout)
        found = json.loads(answer.content) if answer.status_code < 300 else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _shown(name: str) -> str:
    """A model's name without the folders of the server's machine."""
    name = name.encode("utf-8", "replace").decode()
    is_path = name.startswith(("/", "~", ".")) or "\\" in name or name.lower().endswith(".gguf")
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] if is_path else name


def said(error: Any) -> str:
    """What the server said, in one line; the library's own text leaves out what is not in OpenAI's form."""
    body = error.body.get("message", error.body) if isinstance(error.body, dict) else error.body
    return " ".join(str(body or error).split())[:300].rstrip(".")
