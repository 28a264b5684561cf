"""What an engine like vLLM lets see of its requests, told to a `EngineTracker`.

An engine client's `generate` and `encode` are watched from outside: the calls, which belong to the
HTTP request they are made in, and the outputs that come. Nothing is changed on the way, and nothing
that goes wrong here reaches a request.
"""

import contextlib
import logging
from array import array
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from deployments.engines.call import current_call
from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker

NOTABLE_SHARE = 1 / 32
"""Of the KV cache: where so much more or less of it is in use, listeners are told."""

logger = logging.getLogger(__name__)


class Times(Protocol):
    """vLLM's `RequestStateStats`; monotonic seconds, 0 for what has not happened."""

    @property
    def scheduled_ts(self) -> float:
        """When the engine began with the prompt."""

    @property
    def first_token_ts(self) -> float:
        """When it had the first token."""


class Completion(Protocol):
    """vLLM's `CompletionOutput`: an answer, or what has been added to it."""

    @property
    def index(self) -> int:
        """Which of the request's answers."""

    @property
    def text(self) -> str:
        """Its text."""

    @property
    def token_ids(self) -> Sequence[int]:
        """Its tokens."""

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, if it has."""


class Output(Protocol):
    """vLLM's `RequestOutput`."""

    @property
    def outputs(self) -> Sequence[Completion]:
        """What there is of the answers."""

    @property
    def finished(self) -> bool:
        """Whether it is the last."""

    @property
    def num_cached_tokens(self) -> int | None:
        """Of the prompt, found in the KV cache."""

    @property
    def metrics(self) -> Times | None:
        """When what happened, where the engine keeps statistics."""


class Pooled(Protocol):
    """vLLM's `PoolingRequestOutput`."""

    @property
    def finished(self) -> bool:
        """Whether it is the last."""

    @property
    def num_cached_tokens(self) -> int:
        """Of the prompt, found in the KV cache."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a request began, of which no output has been seen."""

    cached_tokens: int
    times: Times | None


_O = TypeVar("_O", bound=Output)
_P = TypeVar("_P", bound=Pooled)


class Observer:
    """Watches an engine client on behalf of `report`."""

    def __init__(self, report: EngineTracker) -> None:
        self._report = report
        self._waiting, self._used_share = 0, 0.0
        """As listeners were told."""
        self._silent: dict[_Watch, str] = {}
        """Those that have given no output yet, with their requests' ids, which clients choose."""

    @property
    def priority(self) -> int:
        """That of the HTTP request this is called in; 0 if it has none."""
        call = current_call()
        return call.dispatch.priority if call and call.dispatch else 0

    def generate(
        self, outputs: AsyncGenerator[_O, None], prompt: object, request_id: str, *, is_delta: bool
    ) -> AsyncGenerator[_O, None]:
        """The outputs of a call, which are watched as they pass.

        `is_delta`: each output has what is new of an answer, and not all of it.
        """
        return self._generate(outputs, _Watch(self._report, prompt, is_delta=is_delta), request_id)

    def encode(self, outputs: AsyncGenerator[_P, None], prompt: object) -> AsyncGenerator[_P, None]:
        """The same for a call whose output is a vector."""
        return self._encode(outputs, _Watch(self._report, prompt, is_delta=False))

    def forget(self) -> None:
        """The engine has emptied its cache."""
        with _harmless():
            self._report.forget()

    def look(
        self, waiting: int, used_share: float, find: Callable[[str], Beginning | None]
    ) -> None:
        """After a step: notice how many wait, and which silent requests have begun.

        `used_share`: of the KV cache; `find` knows the silent requests by their ids.
        """
        self._report.progress()
        is_notable = abs(used_share - self._used_share) > NOTABLE_SHARE
        if is_notable or waiting != self._waiting:
            self._waiting, self._used_share = waiting, used_share
            self._report.notify()
        for watch, request_id in list(self._silent.items()):
            if beginning := find(request_id):
                del self._silent[watch]
                watch.begin(beginning.cached_tokens, beginning.times)

    async def _generate(
        self, outputs: AsyncGenerator[_O, None], watch: "_Watch", request_id: str
    ) -> AsyncGenerator[_O, None]:
        watch.arrive()
        self._silent[watch] = request_id
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    self._silent.pop(watch, None)
                    watch.see(output)
                    yield output
            finally:
                self._silent.pop(watch, None)
                watch.leave()

    async def _encode(
        self, outputs: AsyncGenerator[_P, None], watch: "_Watch"
    ) -> AsyncGenerator[_P, None]:
        watch.arrive()
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    watch.see_pooled(output)
                    yield output
            finally:
                watch.leave()


@dataclass(slots=True)
class _Answer:
    """One answer as it grows, or all of it."""

    tokens: int = 0
    texts: list[str] = field(default_factory=list)
    ids: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, completion: Completion, *, is_delta: bool, is_ids: bool) -> None:
        """Take in what an output has of it."""
        if not is_delta:
            self.tokens, self.texts, self.ids = 0, [], array("I")
        self.tokens += len(completion.token_ids)
        if is_ids:
            self.ids.extend(completion.token_ids)
        elif completion.text:
            self.texts.append(completion.text)

    @property
    def canonical(self) -> bytes:
        """Its part of a later prompt: text, or four bytes for each token id."""
        return self.ids.tobytes() or "".join(self.texts).encode(errors="surrogatepass")


class _Watch:
    """One call to the engine. It never raises: what goes wrong ends the watch, not the request."""

    def __init__(self, report: EngineTracker, prompt: object, *, is_delta: bool) -> None:
        call = current_call()
        self._dispatch = call.take() if call else None
        self._report = report
        self._prompt = prompt
        self._is_delta = is_delta
        self._tracked: TrackedRequest | None = None
        self._has_begun = self._is_over = False
        self._answers: dict[int, _Answer] = {}

    def arrive(self) -> None:
        """The engine gets the request now."""
        with _harmless():
            self._tracked = self._report.arrive(self._dispatch, prompt_tokens(self._prompt))
        self._prompt = None  # it may be large

    def begin(self, cached_tokens: int, times: Times | None) -> None:
        """It has its first token."""
        self._has_begun = True
        with _harmless():
            if self._tracked is not None:
                scheduled_s = (times.scheduled_ts or None) if times else None
                first_token_s = (times.first_token_ts or None) if times else None
                self._report.start(self._tracked, cached_tokens, scheduled_s, first_token_s)

    def see(self, output: Output) -> None:
        """Some of its answers, or the last of them."""
        if self._tracked is None or self._is_over:
            return
        with _harmless():
            self._report.progress()
            if not self._has_begun:
                self.begin(output.num_cached_tokens or 0, output.metrics)
            self._collect(output.outputs)
            if output.finished:
                self._finish(is_aborted=any(o.finish_reason == "abort" for o in output.outputs))

    def see_pooled(self, output: Pooled) -> None:
        """Its vector."""
        with _harmless():
            if self._tracked is not None and output.finished and not self._is_over:
                self._is_over = True
                self._report.pool(self._tracked, output.num_cached_tokens)

    def leave(self) -> None:
        """There will be no more of it."""
        with _harmless():
            self._finish(is_aborted=True)

    def _collect(self, completions: Sequence[Completion]) -> None:
        is_ids = self._dispatch is not None and self._dispatch.is_token_ids
        for completion in completions:
            answer = self._answers.setdefault(completion.index, _Answer())
            answer.add(completion, is_delta=self._is_delta, is_ids=is_ids)

    def _finish(self, *, is_aborted: bool) -> None:
        if self._tracked is None or self._is_over:
            return
        self._is_over = True
        answers = self._answers.values()
        self._report.finish(
            self._tracked,
            sum(answer.tokens for answer in answers),
            [answer.canonical for answer in answers],
            is_aborted=is_aborted,
        )


def prompt_tokens(prompt: object) -> int:
    """How long a prompt is, in any of the forms in which vLLM's routes hand it over; 0: unknown."""
    if not isinstance(prompt, Mapping):
        return len(getattr(prompt, "prompt_token_ids", None) or ())
    if "decoder_prompt" in prompt:
        return prompt_tokens(prompt["decoder_prompt"])
    ids = prompt.get("prompt_token_ids")
    return len(prompt.get("prompt_embeds", ()) if ids is None else ids)


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("telemetry went wrong; the request goes on")
