"""Completions from any OpenAI-compatible server: vLLM, TGI, llama.cpp, `transformers serve`, or a hosted one.

Requests run concurrently, up to a limit and within the server's rate limits. A request that fails for a temporary
reason is repeated after a growing pause; after "too many requests" all requests wait. A request that the server
refuses for good is counted and not repeated.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING

from preference_benchmark.embedding import Unavailable
from preference_benchmark.preferences.llm.engine import (
    LOST,
    REFUSED,
    Completion,
    Deliver,
    Key,
    Request,
    Sampling,
    token_count,
)
from preference_benchmark.preferences.llm.prompts import Prompt
from preference_benchmark.preferences.llm.server_features import AUTO, RESPONSE_FORMATS, ServerFeatures, look_at, said

__all__ = ["OpenAIServer"]


if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_MINUTE = 60.0
_POLL_SECONDS = 0.2  # how often a waiting task checks whether the run was stopped


class _Pace:
    """Keeps requests and tokens below the limits of a server, evenly spaced.

    aiolimiter spaces requests as evenly as our own clock did (60 at 20 a second: gaps of 50 to 57 ms, ours 39 to 61),
    given a bucket of one request, and of one second's tokens: a full minute's bucket would begin with a burst.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit; prompt and completion tokens together.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        from aiolimiter import AsyncLimiter

        self._requests = AsyncLimiter(1, _MINUTE / requests_per_minute) if requests_per_minute else None
        self._tokens = AsyncLimiter(tokens_per_minute / _MINUTE, 1) if tokens_per_minute else None
        self._owed = 0.0
        self._held_until = 0.0

    async def wait(self, tokens: int, stop: threading.Event) -> bool:
        """Return when a request of about this many tokens may begin; False if the run was stopped before."""
        return await _unless_stopped(self._admitted(tokens), stop)

    async def _admitted(self, tokens: int) -> None:
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            self._owed += tokens
            while self._owed > 0:
                piece = min(self._owed, self._tokens.max_rate)
                self._owed -= piece
                await self._tokens.acquire(piece)
        # A "too many requests" to another task in the meantime holds for this one as well.
        while (held := self._held_until - time.monotonic()) > 0:
            await asyncio.sleep(held)

    def hold(self, seconds: float) -> None:
        """Let no request begin for this long."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def correct(self, expected: int, used: int) -> None:
        """Account for a request that took more or fewer tokens than expected."""
        self._owed += used - expected


async def _unless_stopped(work: Coroutine[object, object, None], stop: threading.Event) -> bool:
    """Wait for the end of something; False if `stop` is set before."""
    task = asyncio.ensure_future(work)
    while not task.done() and not stop.is_set():
        await asyncio.wait({task}, timeout=_POLL_SECONDS)
    if not task.done():
        task.cancel()
        return False
    task.result()
    return not stop.is_set()


_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 60.0
_TOO_MANY_REQUESTS = 429
_TEMPORARY_STATUS = frozenset({408, 409, 425, 429})
# All from here on are temporary as well: proxies have numbers of their own.
_SERVER_ERRORS = 500
# No request can succeed after these.
_FATAL_STATUS = frozenset({401, 402, 403, 404, 405})
_NO_CREDIT = 402
# A server that refuses so many before it has answered one refuses the way it is asked.
_REFUSALS_AT_START = 5
_CHARACTERS_PER_TOKEN = 4
_MOST_AT_ONCE = 16


class OpenAIServer:
    """An engine that asks a server.

    Args:
        model: as the server names it.
        prompt: gives the form of the answer and where it ends.
        base_url: such as "http://127.0.0.1:8000/v1"; default: the environment's OPENAI_BASE_URL, else OpenAI's.
        api_key: default: the environment's OPENAI_API_KEY. Your own server may need none.
        sampling: how answers are drawn.
        response_format: how JSON is asked for: "json_schema" (the server guarantees that answers fit), "json_object",
            or "text" (the prompt alone), for servers that know neither; "auto" as `features` says. Where the prompt
            asks for no JSON it is not sent; llama.cpp holds the line to a grammar instead.
        features: of the server; default: what it says about itself now.
        concurrency: requests under way at the same time; None for as many as the server runs, else 16.
        tries: how often a request is sent before it counts as lost.
        timeout: seconds to wait for an answer.
        requests_per_minute: most requests begun in a minute.
        tokens_per_minute: most tokens in a minute.
        first_pause: seconds before the first repetition; each further one waits twice as long.

    Attributes:
        model: that the server reports, else the name that was typed: cached answers belong to it.

    Raises:
        ImportError: without the package openai.
        ValueError: if an argument is out of range.
    """

    batch_size = 64

    def __init__(
        self,
        model: str,
        prompt: Prompt,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        sampling: Sampling | None = None,
        response_format: str = AUTO,
        features: ServerFeatures | None = None,
        concurrency: int | None = None,
        tries: int = 6,
        timeout: float = 120.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        first_pause: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        if response_format not in (AUTO, *RESPONSE_FORMATS):
            known = (AUTO, *RESPONSE_FORMATS)
            raise ValueError(f"response_format={response_format!r} is not known; pass one of {known}.")
        if (concurrency is not None and concurrency < 1) or tries < 1:
            raise ValueError(f"concurrency={concurrency}, tries={tries}: pass at least 1 of each.")
        self._client_arguments = _client_arguments(base_url, api_key, timeout)
        self.features = features or look_at(model, base_url, api_key)
        self.name, self.model, self.prompt = model, self.features.model or model, prompt
        self.sampling = prompt.sampling(sampling)
        self.concurrency = concurrency or min(_MOST_AT_ONCE, self.features.slots or _MOST_AT_ONCE)
        self.tries, self.first_pause = tries, first_pause
        self.faults: Counter[str] = Counter()
        self._limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, limit in self._limits.items():
            if limit is not None and limit <= 0:
                raise ValueError(f"{name}={limit} lets nothing through; pass a positive number, or None for no limit.")
        self._options = _options(prompt, self.features.response_format if response_format == AUTO else response_format)
        self._answered = self._refused = 0
        self._answering: str | None = None
        self._begun: dict[Key, float] = {}
        self._slowest = 0.0

    def run(self, batches: Iterator[list[Request]], deliver: Deliver, stop: threading.Event) -> None:
        """Complete all requests, as `Engine.run` says.

        Raises:
            Unavailable: if the server denies access, wants payment, does not know the model, or refuses the form of
                the requests.
        """
        asyncio.run(self._run(batches, deliver, stop))

    def under_way(self) -> str:
        """How many requests are under way, and how long they may take."""
        begun, timeout = list(self._begun.values()), self._client_arguments["timeout"]
        slowest = f"; the slowest answer so far took {self._slowest:.0f} s" if self._slowest else ""
        left = max(timeout - (time.monotonic() - max(begun)), 0.0) if begun else 0.0
        return f"{len(begun)} requests under way, {left:.0f} s at most{slowest}"

    async def _run(self, batches: Iterator[list[Request]], deliver: Deliver, stop: threading.Event) -> None:
        from openai import AsyncOpenAI

        requests = (request for batch in batches for request in batch)
        pace = _Pace(**self._limits)
        async with AsyncOpenAI(**self._client_arguments) as client:

            async def work() -> None:
                # Workers draw from one iterator, so that no more requests exist than are under way.
                while not stop.is_set() and (request := next(requests, None)) is not None:
                    completion = await self._complete(client, request, pace, stop)
                    if completion is not None:
                        deliver([completion])

            workers = [asyncio.create_task(work()) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            except BaseException:
                # What is under way was paid for: let it come in before the error goes up.
                stop.set()
                await asyncio.gather(*workers, return_exceptions=True)
                raise

    async def _complete(
        self, client: AsyncOpenAI, request: Request, pace: _Pace, stop: threading.Event
    ) -> Completion | None:
        """How one request ended; None if the run was stopped before it began."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        expected = request.characters // _CHARACTERS_PER_TOKEN + self.sampling.max_tokens // 4
        reason = ""
        for attempt in range(self.tries):
            if not await pace.wait(expected, stop):
                return None
            self._begun[request.key] = begun = time.monotonic()
            try:
                completion = await self._ask(client, request)
            except APIStatusError as error:
                reason = f"HTTP {error.status_code}"
                self.faults[reason] += 1
                if error.status_code < _SERVER_ERRORS and error.status_code not in _TEMPORARY_STATUS:
                    return self._refusal(request, error)
                seconds = self._pause(request, attempt, error.response.headers.get("retry-after"))
                if error.status_code == _TOO_MANY_REQUESTS:
                    pace.hold(seconds)
            except APITimeoutError:
                reason = "timed out"
                self.faults[reason] += 1
                seconds = self._pause(request, attempt)
            except APIConnectionError as error:
                reason = f"no connection ({type(error.__cause__).__name__})"
                self.faults["no connection"] += 1
                seconds = self._pause(request, attempt)
            except ValueError:  # the body is not JSON, or no completion
                reason = "unreadable response"
                self.faults[reason] += 1
                seconds = self._pause(request, attempt)
            else:
                used = (completion.prompt_tokens or 0) + (completion.completion_tokens or 0)
                pace.correct(expected, used or expected)
                self._answered += 1
                self._slowest = max(self._slowest, time.monotonic() - begun)
                return completion
            finally:
                self._begun.pop(request.key, None)
            if attempt + 1 < self.tries and not await _unless_stopped(asyncio.sleep(seconds), stop):
                return None
        return Completion(request, "", LOST, error=f"{reason}, {self.tries} times")

    async def _ask(self, client: AsyncOpenAI, request: Request) -> Completion:
        if self.prompt.chat:
            create, asked = client.chat.completions, {"messages": list(request.messages)}
        else:
            create, asked = client.completions, {"prompt": request.messages[-1]["content"]}
        if not self.prompt.json_answer and self.features.grammar:
            asked["extra_body"] = {"grammar": self.prompt.grammar(request.opening)}
        # The body is read here: the client's own types take a field of an unexpected kind for an error, after payment.
        response = await create.with_raw_response.create(
            model=self.name,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            seed=request.seed,
            # Gateways that know the header do not charge twice for a request whose answer was lost on the way.
            extra_headers={"Idempotency-Key": f"{request.window}-{request.key.attempt}-{request.seed}"},
            **asked,
            **self._options,
        )
        body = json.loads(response.content)
        choice = _first_choice(body)
        answering = body.get("model")
        if isinstance(answering, str):
            self._answering = self._answering or answering
            if answering != self._answering:
                reason = f"answered by another model, {answering}"
                self.faults["answered by another model"] += 1
                return Completion(request, "", LOST, error=reason)
        text = _content(choice)
        if not self.prompt.chat and not text.lstrip().startswith(request.opening):
            text = f"{request.opening} {text.lstrip()}"
        usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
        return Completion(
            request,
            text,
            "length" if choice.get("finish_reason") == "length" else "stop",
            token_count(usage.get("prompt_tokens")),
            token_count(usage.get("completion_tokens")),
        )

    def _refusal(self, request: Request, error: APIStatusError) -> Completion:
        """A request that the server refuses; an error if it would refuse all."""
        self._refused += 1
        message, status = said(error), error.status_code
        if status in _FATAL_STATUS:
            where = self._client_arguments.get("base_url") or "the server"
            remedy = "Check the address (it usually ends in /v1), the key and the model's name."
            if status == _NO_CREDIT:
                remedy = "Add credit and run again; what was answered is kept."
            raise Unavailable(f"{where} answered {status} for the model {self.name!r}: {message}. {remedy}")
        if not self._answered and self._refused >= _REFUSALS_AT_START:
            raise Unavailable(
                f"the first {self._refused} requests were refused with {status}: {message}. If the server does not "
                "know response_format, ask with another one (json_object or text)."
            )
        return Completion(request, "", REFUSED, error=message)

    def _pause(self, request: Request, attempt: int, retry_after: str | None = None) -> float:
        """Seconds until a request may be repeated: what the server says, else doubling, spread by chance."""
        try:
            asked = float(retry_after) if retry_after else 0.0
        except ValueError:  # a date: rare, and the doubling pause will do
            asked = 0.0
        spread = random.Random(f"{request.window}-{request.key.attempt}-{attempt}").uniform(0.5, 1.0)
        doubling = self.first_pause * 2**attempt * spread
        return min(max(asked, doubling), _LONGEST_PAUSE_SECONDS)


def _first_choice(body: object) -> dict[str, object]:
    """The first answer of a response.

    Raises:
        ValueError: if it is not a completion.
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not ({"message", "text"} & choice.keys()):
        raise ValueError("the response is not a completion")
    if "text" not in choice and not isinstance(choice["message"], dict):
        raise ValueError("the response is not a completion")
    return choice


def _content(choice: dict[str, object]) -> str:
    """The text of an answer: a string, or the texts among its parts."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else choice.get("text")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str))
    # JSON can escape half of a character, which no file may hold.
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _options(prompt: Prompt, response_format: str) -> dict[str, object]:
    options: dict[str, object] = {}
    if prompt.stops:
        options["stop"] = list(prompt.stops)
    if prompt.schema is not None and response_format == "json_schema":
        schema = {"name": "preferences", "schema": prompt.schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif prompt.schema is not None and response_format == "json_object":
        options["response_format"] = {"type": "json_object"}
    return options


def _client_arguments(base_url: str | None, api_key: str | None, timeout: float) -> dict[str, object]:
    try:
        import aiolimiter  # noqa: F401
        import openai  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"asking a server needs the packages openai and aiolimiter ({error}); `pip install openai aiolimiter`."
        ) from error
    own = base_url or os.environ.get("OPENAI_BASE_URL")
    key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if own else None)
    if key is None:
        raise ValueError("no API key: set OPENAI_API_KEY, or pass base_url for a server that needs none.")
    # The client could repeat requests itself, but waits out its pauses whatever happens (a server that says
    # "Retry-After: 8" delayed a stop by 30 s and more), knows no pause for all, counts no causes, and gives up on
    # responses that are not JSON. So it is done here.
    return {"base_url": base_url, "api_key": key, "timeout": timeout, "max_retries": 0}
