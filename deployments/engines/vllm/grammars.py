"""Grammars of structured outputs, tried out in a process of their own before vLLM compiles them.

vLLM 0.32 compiles a grammar in a thread of its engine core, which nothing can cancel: a request of
a few hundred bytes can take minutes, and all memory. What fails there is a server error. And a
grammar can make each of its tokens slower than the one before, in the loop that serves everybody.
So a grammar that is not plain is tried first, under limits of time and memory, with vLLM's own
code. The verdict is remembered. The process starts with the engine, or, on the CPU, with its first
structured output.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pickle
import sys
from collections import OrderedDict
from typing import Any, cast

import cloudpickle  # type: ignore[import-untyped]
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from deployments.engines.call import GrammarFields, current_call
from deployments.engines.vllm.api.grammar_fields import STRUCTURED_OUTPUTS
from deployments.engines.vllm.grammar_process import (
    LENGTH,
    PATIENCE,
    Trial,
    Verdict,
    main,
    unfinished,
)
from deployments.engines.vllm.plain_schema import is_plain, is_plain_tag
from deployments.engines.vllm.trial_slots import ANONYMOUS, Client, TrialSlots

MAX_VERDICTS = 4096
MAX_TRIALS = 6
"""Trials at the same time, of which one client gets two: slow ones do not hold up the others."""
START_TIMEOUT_S = 180.0
NICENESS = 15
"""Priority of the process while it starts: the engine goes first where they share cores."""
MAX_PLAIN_CHARS = 1 << 16
"""Length up to which the text of a schema is looked into."""

logger = logging.getLogger(__name__)


class TrialsEnded(RuntimeError):
    """The process that tries grammars has ended."""


class GrammarGuard:
    """Lets those grammars through that compile within `limit_s`."""

    def __init__(self, config: VllmConfig, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process = _TrialProcess(config)
        self._verdicts: OrderedDict[bytes, str] = OrderedDict()
        self._slots = TrialSlots(MAX_TRIALS)

    def start(self) -> None:
        """Start the process now, so that the first grammar need not wait for it."""
        self._process.start()

    def needs_trial(self, spec: StructuredOutputsParams | None) -> bool:
        """Whether a grammar has to be tried first: it is not plain.

        Any grammar starts the process of trials, so that it is ready for the next.
        """
        if spec is None or spec.all_constraints_none():
            return False
        self._process.start()
        return not (spec.json_object or _is_plain(spec))

    async def check(self, spec: StructuredOutputsParams | None) -> None:
        """Return if a grammar compiles.

        Raises:
            VLLMValidationError: it does not, or takes too much time or memory.
        """
        if spec is None or not self.needs_trial(spec):
            return
        key = _digest(spec)
        reason = self._verdicts.get(key)
        if reason is None:
            reason = await self._slots.run(_client(), lambda: self._try_out(key, spec))
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
        if reason:
            message = f"the grammar is refused: {reason}"
            raise VLLMValidationError(message, parameter=_field_of(spec))

    async def stop(self) -> None:
        """End the process, if it has been started."""
        await self._slots.stop()
        await self._process.stop()

    async def _try_out(self, key: bytes, spec: StructuredOutputsParams) -> str:
        reason = self._verdicts.get(key)  # another request may have had the same grammar meanwhile
        if reason is None:
            verdict = await self._process.verdict_on(spec, self._limit_s)
            reason = verdict.reason
            if verdict.is_lasting:
                self._verdicts[key] = reason
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        return reason


class _TrialProcess:
    """The process that tries grammars, started again if it has ended."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Verdict]] = {}

    def start(self) -> asyncio.Task[asyncio.subprocess.Process]:
        """Start the process if it is not running; it is ready some seconds later."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="grammar-process")
        return self._starting

    async def verdict_on(self, spec: StructuredOutputsParams, limit_s: float) -> Verdict:
        """How the trial of a grammar ends; it passes if none can be tried.

        Raises:
            TrialsEnded: the process has ended meanwhile.
        """
        try:
            process = await asyncio.shield(self.start())
        except TrialsEnded:
            logger.exception("a grammar is not tried before it is compiled")
            return Verdict(0, "")
        trials = cast("asyncio.StreamWriter", process.stdin)
        trial = Trial(next(self._ids), spec, limit_s)
        verdict = self._pending[trial.id] = asyncio.get_running_loop().create_future()
        try:
            trials.write(_frame(pickle.dumps(trial)))
            await trials.drain()
            return await asyncio.wait_for(verdict, PATIENCE * limit_s + 1)
        except TimeoutError:
            return unfinished(trial)
        finally:
            del self._pending[trial.id]

    async def stop(self) -> None:
        """End the process."""
        if (starting := self._starting) is None:
            return
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            process = starting.result()
            if process.returncode is None:
                process.kill()
            await process.wait()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                f"import os; os.nice({NICENESS}); from {main.__module__} import main; main()",
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
        )
        trials = cast("asyncio.StreamWriter", process.stdin)
        verdicts = cast("asyncio.StreamReader", process.stdout)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                trials.write(_frame(cloudpickle.dumps(self._config)))
                await trials.drain()
                await _read_verdict(verdicts)
        except BaseException as error:
            self._starting = None
            if process.returncode is None:
                process.kill()
            if isinstance(error, asyncio.IncompleteReadError | ConnectionError | TimeoutError):
                raise TrialsEnded("the process that tries grammars cannot be started") from error
            raise
        self._reading = asyncio.create_task(self._read(verdicts))
        return process

    async def _read(self, answers: asyncio.StreamReader) -> None:
        """Pass verdicts on until the process ends."""
        try:
            while True:
                verdict = await _read_verdict(answers)
                waiting = self._pending.get(verdict.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(verdict)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._starting = None
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(TrialsEnded("the process that tries grammars has ended"))


async def _read_verdict(answers: asyncio.StreamReader) -> Verdict:
    (length,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
    verdict: Verdict = pickle.loads(await answers.readexactly(length))  # noqa: S301 - our own
    return verdict


def _frame(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def _is_plain(spec: StructuredOutputsParams) -> bool:
    if spec.structural_tag is not None:  # those of clients may be no tags at all
        return _fields().tools is not None and is_plain_tag(_parsed(spec.structural_tag))
    return is_plain(_parsed(spec.json))


def _parsed(text: Any) -> Any:  # noqa: ANN401 - JSON, as a text or not
    if isinstance(text, str) and len(text) <= MAX_PLAIN_CHARS:
        with contextlib.suppress(ValueError, RecursionError):  # vLLM says what is wrong with it
            return json.loads(text)
    return text


def _client() -> Client:
    call = current_call()
    return call.dispatch.tenant if call and call.dispatch else ANONYMOUS


def _fields() -> GrammarFields:
    """The fields of the call that is worked on from which its grammar may come.

    Those of tools are not among them if the client has written a structural tag itself.
    """
    call = current_call()
    return GrammarFields() if call is None else call.grammar_fields


def _field_of(spec: StructuredOutputsParams) -> str:
    """The client's field that a grammar comes from; vLLM's own if that is not known.

    vLLM makes a structural tag of tools, and of tools together with a format only if that compiles.
    """
    fields = _fields()
    is_of_tools = spec.structural_tag is not None or fields.format is None
    return (fields.tools if is_of_tools else None) or fields.format or STRUCTURED_OUTPUTS


def _digest(spec: StructuredOutputsParams) -> bytes:
    fields = json.dumps(dataclasses.asdict(spec), default=str)
    return hashlib.blake2b(fields.encode(errors="surrogatepass"), digest_size=16).digest()
