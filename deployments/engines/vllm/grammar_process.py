"""Process that tries grammars out, each in a fork of its own that dies when its time is over.

`main` reads vLLM's configuration and then trials from standard input, and writes a verdict
for each. See `grammars.py` for the reasons.
"""

import gc
import logging
import os
import pickle
import re
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.request import StructuredOutputRequest

LENGTH = struct.Struct("!I")
MEMORY_BYTES = 4 << 30
"""Memory that a grammar may take, beside what the process has anyway."""
VALIDATION_S = 1.0
"""Time that validation may take: vLLM does it in the event loop of all requests."""
WALK_TOKENS = 256
"""Tokens that are tried with a grammar: those of an ambiguous one take longer and longer."""
BITS = [~(1 << bit) if bit < 31 else (1 << 31) - 1 for bit in range(32)]
"""Masks that clear one bit of a signed number of 32 bits."""
SLOW_S, SLOWDOWN = 0.25, 3.0
"""A grammar is refused if the second half of the walk takes longer than this, and so many times
longer than the first."""
REASON_CHARS = 500
WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+: ")
"""Time and place in xgrammar's source with which its messages begin."""


class Trial(NamedTuple):
    """A grammar to try."""

    id: int
    spec: StructuredOutputsParams
    limit_s: float


class Verdict(NamedTuple):
    """How a trial has ended; a trial without a verdict has taken too long."""

    id: int
    reason: str
    """Why the grammar is refused; empty if it is not."""


def write_frame(stream: BinaryIO, value: object) -> None:
    """Write a value with its length, in one piece if it is short."""
    data = pickle.dumps(value)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def read_frame(stream: BinaryIO) -> Any:  # noqa: ANN401 - whatever was written
    """Read a value; None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return pickle.loads(stream.read(LENGTH.unpack(head)[0]))  # noqa: S301 - from our own process


class GrammarTrials:
    """Tries grammars as vLLM's engine core compiles them."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._manager = StructuredOutputManager(config)
        # Compiles where it is called; by itself, vLLM would do so in a thread.
        self._manager._use_async_grammar_compilation = False  # noqa: SLF001
        size = config.model_config.get_vocab_size()
        ids = self._manager.tokenizer.all_special_ids
        self._special = [id_ for id_ in ids if id_ < size]
        self.try_out(StructuredOutputsParams(json_object=True))

    def try_out(self, spec: StructuredOutputsParams) -> None:
        """Raise what vLLM raises for a grammar, or `ValueError` if it is too slow."""
        params = SamplingParams(structured_outputs=spec)
        config, tokenizer = self._config, self._manager.tokenizer
        started_s = time.process_time()
        params._validate_structured_outputs(  # noqa: SLF001
            config.model_config, config.structured_outputs_config, tokenizer
        )
        if time.process_time() - started_s > VALIDATION_S:
            raise ValueError(f"it takes more than {VALIDATION_S:g} s to validate")
        asked = StructuredOutputRequest.from_sampling_params(params)
        request: Any = SimpleNamespace(
            structured_output_request=asked, sampling_params=params, request_id="trial"
        )
        self._manager.grammar_init(request)
        grammar = asked.grammar if asked else None
        if isinstance(grammar, Exception):
            raise grammar
        self._walk(grammar)

    def _walk(self, grammar: Any) -> None:  # noqa: ANN401 - of any of vLLM's backends
        """Take one allowed token after the other, the same again where possible."""
        backend = self._manager.backend
        mask = backend.allocate_token_bitmask(1) if backend else None
        if mask is None:
            return
        started_s, half_s, token = time.process_time(), 0.0, -1
        for step in range(WALK_TOKENS):
            if step == WALK_TOKENS // 2:
                half_s = time.process_time() - started_s
            grammar.fill_bitmask(mask, 0)
            token = _next(mask[0].numpy(), token, self._special)
            if token < 0 or grammar.is_terminated() or not grammar.accept_tokens("trial", [token]):
                return
        rest_s = time.process_time() - started_s - half_s
        if rest_s > SLOW_S and rest_s > SLOWDOWN * half_s:
            raise ValueError("it is ambiguous, and becomes slower with every token")


def _next(mask: Any, last: int, special: Iterable[int]) -> int:  # noqa: ANN401 - NumPy's array
    """The last token if it is allowed again, else the first that is; -1 if none is but the end.

    `mask`: a bit for each token, 32 in each number.
    """
    if not mask.any():
        raise ValueError("it allows no text that ends")
    for token in special:
        mask[token // 32] &= BITS[token % 32]
    if last >= 0 and mask[last // 32] >> (last % 32) & 1:
        return last
    words = mask.nonzero()[0]
    if not len(words):
        return -1
    word = int(mask[words[0]]) & 0xFFFFFFFF
    return int(words[0]) * 32 + (word & -word).bit_length() - 1


def _run(trials: GrammarTrials, trial: Trial) -> Verdict:
    """Try one grammar, in a fork; the kernel ends it when its time is over."""
    signal.setitimer(signal.ITIMER_REAL, trial.limit_s)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # xgrammar warns of each part of a schema
    now_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + MEMORY_BYTES,) * 2)
    try:
        trials.try_out(trial.spec)
    except MemoryError:
        return Verdict(trial.id, "it takes too much memory to compile")
    except Exception as error:  # noqa: BLE001 - whatever a backend raises is about the grammar
        reason = WHERE.sub("", str(error)).strip() or type(error).__name__
        return Verdict(trial.id, reason[:REASON_CHARS])
    return Verdict(trial.id, "")


def main() -> None:
    """Serve trials until standard input is closed."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    trials = GrammarTrials(read_frame(source))
    logging.disable()  # vLLM would log a traceback for each grammar that fails
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork is waited for
    write_frame(answers, Verdict(0, ""))
    while (trial := read_frame(source)) is not None:
        if os.fork() == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            write_frame(answers, _run(trials, trial))
            os._exit(0)
