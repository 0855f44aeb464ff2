"""Completions from a model on this machine, through transformers: batches, the model's own chat template, GGUF files.

With xgrammar installed, decoding is constrained to the form of the answer. A batch always holds the same requests and
has its own seed, so a run that was killed and continued writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from preference_benchmark.embedding import loading
from preference_benchmark.preferences.llm.engine import REFUSED, Completion, Deliver, Request, Sampling
from preference_benchmark.preferences.llm.prompts import PROMPTS, Prompt
from preference_benchmark.preferences.llm.server_features import SMALL

__all__ = ["LocalModel"]

_LEAST_CONTEXT = 256


class LocalModel:
    """An engine that runs a causal language model here.

    Args:
        name_or_path: a Hub name, a local folder, or a GGUF file, whose weights are unpacked into memory.
        prompt: gives the form of the answer and where it ends; None for the one that fits the model (`prompt`).
        sampling: how answers are drawn.
        batch_size: requests per forward pass.
        device: as torch names it; default: the accelerator if there is one.
        dtype: as `from_pretrained` takes it; "auto" is the checkpoint's own.
        constrained: whether decoding is constrained to the form of the answer; default: if xgrammar is installed.

    Attributes:
        prompt: what is asked.
        why: why this prompt fits; "" where it was given.

    Raises:
        ValueError: if `batch_size` is not positive, or if the model has no chat template and the prompt needs one.
        ImportError: if `constrained` is asked for without xgrammar, or a GGUF file is given without gguf.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        prompt: Prompt | None = None,
        *,
        sampling: Sampling | None = None,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str = "auto",
        constrained: bool | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is not positive; pass at least 1.")
        if constrained and find_spec("xgrammar") is None:
            raise ImportError("constrained=True needs the package xgrammar; `pip install xgrammar`, or leave it out.")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source, file = _source(name_or_path)
        self.model = file or (Path(source).name if Path(source).is_dir() else source)
        self.batch_size = batch_size
        self.faults: Counter[str] = Counter()
        self._begun, self._slowest, self._running = 0.0, 0.0, 0
        with loading("language model", str(name_or_path)):
            self.tokenizer = AutoTokenizer.from_pretrained(
                source, gguf_file=file, padding_side="left", trust_remote_code=False
            )
        if self.tokenizer.chat_template is None and prompt is not None and prompt.chat:
            raise ValueError(
                f"{name_or_path} has no chat template, so it is a base model that cannot follow the prompt "
                f"{prompt.name!r}; use the prompt 'few-shot', or a chat model."
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with loading("language model", str(name_or_path)):
            network = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=dtype, trust_remote_code=False)
        self.network = network.to(device).eval()
        self.prompt, self.why = (prompt, "") if prompt is not None else self._fitting()
        self.sampling = self.prompt.sampling(sampling)
        self._processor = self._constraint(find_spec("xgrammar") is not None if constrained is None else constrained)

    def _fitting(self) -> tuple[Prompt, str]:
        """The prompt that fits the model, and why."""
        if self.tokenizer.chat_template is None:
            return PROMPTS["few-shot"], "the model has no chat template"
        size = self.network.num_parameters()
        name = "one-review" if size < SMALL else "instruct"
        return PROMPTS[name], f"a chat model of {size / 1e6:,.0f} million parameters"

    def under_way(self) -> str:
        """How many requests are under way, and how long they may take."""
        slowest = f"; the slowest batch so far took {self._slowest:.0f} s" if self._slowest else ""
        return f"{self._running} requests in a batch begun {time.monotonic() - self._begun:.0f} s ago{slowest}"

    @property
    def constrained(self) -> bool:
        """Whether decoding is constrained to the form of the prompt's answer."""
        return self._processor is not None

    def run(self, batches: Iterator[list[Request]], deliver: Deliver, stop: threading.Event) -> None:
        """Complete all requests, batch by batch, as `Engine.run` says."""
        for batch in batches:
            if stop.is_set():
                return
            self._begun, self._running = time.monotonic(), len(batch)
            done = self._complete(batch)
            self._slowest = max(self._slowest, time.monotonic() - self._begun)
            deliver(done)

    def _complete(self, batch: list[Request]) -> list[Completion]:
        texts = [self._text(request) for request in batch]
        lengths = [len(tokens) for tokens in self.tokenizer(texts, add_special_tokens=self._bare)["input_ids"]]
        room = max(self._context() - self.sampling.max_tokens, _LEAST_CONTEXT)
        fitting = [number for number, length in enumerate(lengths) if length <= room]
        done = {
            number: Completion(batch[number], "", REFUSED, error=f"{length} tokens do not fit into {room}")
            for number, length in enumerate(lengths)
            if length > room
        }
        if fitting:
            answers = self._generate([texts[number] for number in fitting], batch[fitting[0]].seed)
            for number, (text, finish, written) in zip(fitting, answers, strict=True):
                # The opening is the end of what the model was given.
                done[number] = Completion(batch[number], batch[number].opening + text, finish, lengths[number], written)
        return [done[number] for number in range(len(batch))]

    def _generate(self, texts: list[str], seed: int) -> list[tuple[str, str, int]]:
        """Text, how it ended and tokens written, per text."""
        import torch

        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=self._bare)
        inputs = inputs.to(self.network.device)
        drawn = self.sampling.temperature > 0
        how = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p} if drawn else {}
        if self._processor is not None:
            how["logits_processor"] = [self._processor()]
        if self.prompt.stops:
            how |= {"stop_strings": list(self.prompt.stops), "tokenizer": self.tokenizer}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            output = self.network.generate(
                **inputs,
                do_sample=drawn,
                max_new_tokens=self.sampling.max_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                **how,
            )
        written = output[:, inputs["input_ids"].shape[1] :].tolist()
        found = []
        for tokens in written:
            while tokens and tokens[-1] == self.tokenizer.pad_token_id:
                tokens.pop()
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            cut = len(tokens) >= self.sampling.max_tokens and not any(stop in text for stop in self.prompt.stops)
            found.append((text, "length" if cut else "stop", len(tokens)))
        return found

    @property
    def _bare(self) -> bool:
        """Whether texts lack the special tokens that a chat template writes."""
        return not self.prompt.chat

    def _text(self, request: Request) -> str:
        messages = list(request.messages)
        if not self.prompt.chat:
            return "".join(message["content"] for message in messages)
        asked = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return asked + request.opening

    def _context(self) -> int:
        """Most tokens that the model takes."""
        longest = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        return min(longest or 1 << 30, self.tokenizer.model_max_length)

    def _constraint(self, wanted: bool) -> Callable[[], object] | None:
        """Makes a logits processor for one batch that allows only what the prompt's answer looks like."""
        if not wanted:
            return None
        import xgrammar
        from xgrammar.contrib.hf import LogitsProcessor

        vocabulary = self.network.config.get_text_config().vocab_size
        known = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=vocabulary)
        compiler = xgrammar.GrammarCompiler(known)
        if self.prompt.schema is not None:
            grammar = compiler.compile_json_schema(json.dumps(self.prompt.schema))
        else:
            grammar = compiler.compile_grammar(self.prompt.grammar(""))
        return lambda: LogitsProcessor(grammar)


def _source(name_or_path: str | Path) -> tuple[str, str | None]:
    """What `from_pretrained` takes: a name or folder, and the GGUF file in it if it is one.

    Raises:
        ImportError: if it is a GGUF file and the package gguf is missing.
        ValueError: if a folder holds several GGUF files and no other model.
    """
    path = Path(name_or_path)
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise ValueError(f"{path} holds {len(files)} GGUF files; pass one of them, such as {files[0]}.")
        path = files[0] if files else path
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return str(name_or_path), None
    if find_spec("gguf") is None:
        raise ImportError(f"{path.name} is a GGUF file, which needs the package gguf; `pip install gguf`.")
    return str(path.parent), path.name
