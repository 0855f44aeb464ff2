"""A chat-completion server on loopback that counts what it is asked and misbehaves to order."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRAITS = ("soft light", "a flat lid", "thick walls", "round edges", "a long cord", "fine tips", "warm colours")


def good_answer(content: str) -> str:
    """Five preferences about the latest item, which depend on nothing but what was asked."""
    number = int.from_bytes(hashlib.sha256(content.encode()).digest()[:6], "big")
    titles = re.findall(r'"item":"([^"]+)"|Product: (.+)', content)
    kind = " ".join((titles[-1][0] or titles[-1][1]).lower().split()[:3]) if titles else "lamps"
    wishes = [
        f"{'Avoid' if place == 4 else 'Find'} {kind} with {TRAITS[(number + place) % len(TRAITS)]}"
        for place in range(5)
    ]
    return json.dumps({"preferences": wishes})


Behaviour = Callable[[str, int, int], tuple[int, str, dict[str, str]] | str]


class LoopbackServer:
    """Answers `POST /v1/chat/completions` and `POST /v1/completions`.

    Args:
        behave: gets what was asked (the last message), how often it was asked before with this seed, and the seed;
            returns the answer's text, or a status, a raw body and headers.
        delay: seconds before every response.
        pages: what `GET` answers, by path, as JSON; others are not found.

    Attributes:
        paths: how often each path was asked.
    """

    def __init__(
        self,
        behave: Behaviour = lambda content, times, seed: good_answer(content),
        delay: float = 0.0,
        pages: dict[str, object] | None = None,
    ) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        self.paths: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.most_at_once = self._now = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: the second would wait for the first to be acknowledged

            def do_POST(self) -> None:
                try:
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                except (OSError, ValueError):  # the client was killed while it was sending
                    return
                chat = self.path.endswith("/chat/completions")
                content = body["messages"][-1]["content"] if chat else body["prompt"]
                seed = body.get("seed", 0)
                with lock:
                    times = server.asked[content, seed]
                    server.asked[content, seed] += 1
                    server.paths[self.path] += 1
                    server.bodies.append(body)
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                try:
                    time.sleep(delay)
                    answer = behave(content, times, seed)
                finally:
                    with lock:
                        server._now -= 1
                if isinstance(answer, str):
                    answer = (200, completion(answer, chat=chat), {})
                self._send(*answer)

            def do_GET(self) -> None:
                server.paths[self.path] += 1
                found = (pages or {}).get(self.path)
                self._send(404 if found is None else 200, json.dumps(found), {})

            def _send(self, status: int, raw: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(raw.encode()))} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(raw.encode())
                    self.wfile.flush()
                except OSError:  # the client was killed
                    pass

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # the usual 5 turns clients away on a busy machine

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> LoopbackServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(
    text: str, finish: str = "stop", tokens: tuple[int, int] | None = (100, 60), *, chat: bool = True, **fields: object
) -> str:
    """The body of a completion; `fields` replace its own."""
    usage = (
        {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)} if tokens else None
    )
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, "finish_reason": finish} | said
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(body | fields)
