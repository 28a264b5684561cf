"""Process that tries grammars out, each in a fork of its own that dies when its time is over.

`main` reads vLLM's configuration and then trials from standard input, and writes a verdict
for each. See `grammars.py` for the reasons.

Engines go first where they share cores with trials. Ray's workers have a low priority already, so
a lower one would say little: the scheduler treats forks as idle (`SCHED_IDLE`). And they have a
session of their own, with a small share: Linux shares a core out among sessions first, and there an
idle trial would run with all the weight of the engine's. So that honest grammars pass on a busy
machine all the same, a trial's time is its own time on a core, and the share is no smaller.
"""

import contextlib
import ctypes
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
SESSION_NICENESS = 10
"""Gives the trials of an engine a tenth of what a busy session gets."""
PATIENCE = 3
"""Times the limit of a trial that may pass until it has had so much time on a core."""
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
PR_SET_PDEATHSIG = 1
"""Option of `prctl`: the signal that a process gets when its parent ends."""
WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+: ")
"""Time and place in xgrammar's source with which its messages begin."""


class Trial(NamedTuple):
    """A grammar to try."""

    id: int
    spec: StructuredOutputsParams
    limit_s: float
    """Time on a core that it may take."""


class Verdict(NamedTuple):
    """How a trial has ended."""

    id: int
    reason: str
    """Why the grammar is refused; empty if it is not."""
    is_lasting: bool = True
    """Whether the next trial of the same grammar would end alike."""


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


class _Forks:
    """Forks of this process, each of which tries one grammar."""

    def __init__(self, trials: GrammarTrials, answers: BinaryIO) -> None:
        self._trials = trials
        self._answers = answers
        self._running: dict[int, Trial] = {}
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())

    def start(self, trial: Trial) -> None:
        """Try a grammar in a fork; its verdict is written when it ends, however it ends."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            fork = os.fork()
            if fork == 0:
                write_frame(self._answers, _run(self._trials, trial))
                os._exit(0)
            self._running[fork] = trial
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def _reap(self) -> None:
        """Write the verdicts on forks that a signal has ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                fork, status = os.waitpid(-1, os.WNOHANG)
                if not fork:
                    return
                trial = self._running.pop(fork, None)
                if trial and os.WIFSIGNALED(status):
                    write_frame(self._answers, verdict_on_end(trial, os.WTERMSIG(status)))


def verdict_on_end(trial: Trial, ended_by: int) -> Verdict:
    """Verdict on a trial that a signal has ended."""
    match ended_by:
        case signal.SIGPROF:
            reason = (
                f"it takes more than {trial.limit_s:g} s to compile and try; make it smaller, with"
                " fewer and shorter repetitions"
            )
            return Verdict(trial.id, reason)
        case signal.SIGALRM:
            return unfinished(trial)
        case signal.SIGKILL:
            return Verdict(trial.id, "its trial was ended, maybe for its memory", is_lasting=False)
    return Verdict(trial.id, "it takes too much memory to compile, or cannot be compiled at all")


def unfinished(trial: Trial) -> Verdict:
    """Verdict on a trial that has had too little time on a core."""
    reason = (
        f"it could not be compiled and tried within {PATIENCE * trial.limit_s:g} s on this busy"
        " machine; make it smaller, or try it again later"
    )
    return Verdict(trial.id, reason, is_lasting=False)


def _run(trials: GrammarTrials, trial: Trial) -> Verdict:
    """Try one grammar, in a fork; the kernel ends it when its time is over."""
    signal.setitimer(signal.ITIMER_PROF, trial.limit_s)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * trial.limit_s)
    _give_way()
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


def _give_way() -> None:
    """Let everything else on the machine go before this fork; end it with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # if memory is short, end this rather than an engine
        Path("/proc/self/oom_score_adj").write_text("1000")


def _leave_session() -> None:
    """Take a session of its own for this process, with a small share of the cores."""
    with contextlib.suppress(OSError):  # not every kernel shares cores out among sessions
        os.setsid()
        Path("/proc/self/autogroup").write_text(str(SESSION_NICENESS))


def main() -> None:
    """Serve trials until standard input is closed."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    trials = GrammarTrials(read_frame(source))
    logging.disable()  # vLLM would log a traceback for each grammar that fails
    gc.freeze()
    _leave_session()
    for ending in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ending, signal.SIG_DFL)
    forks = _Forks(trials, answers)
    write_frame(answers, Verdict(0, ""))
    while (trial := read_frame(source)) is not None:
        forks.start(trial)
