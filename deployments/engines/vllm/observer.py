"""Observer of an engine client like vLLM's, which reports its requests to an `EngineTracker`.

The client's `generate` and `encode` are observed from outside: the calls, each made inside an HTTP
request, and the outputs. Nothing is changed on the way, and no error here reaches a request.
"""

import contextlib
import logging
from array import array
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from deployments.engines.call import current_call, current_usage
from gateway.engine_telemetry.tracked_request import TrackedRequest
from gateway.engine_telemetry.tracker import EngineTracker

REPORTED_CHANGE = 1 / 32
"""Change of the used share of the KV cache that is reported by itself."""

logger = logging.getLogger(__name__)


class RequestTimes(Protocol):
    """vLLM's `RequestStateStats`: monotonic seconds, 0 for events that have not happened."""

    @property
    def scheduled_ts(self) -> float:
        """Time when the engine began with the prompt."""

    @property
    def first_token_ts(self) -> float:
        """Time of the first token."""


class Completion(Protocol):
    """vLLM's `CompletionOutput`: a completion, or its latest part."""

    @property
    def index(self) -> int:
        """Index among the request's completions."""

    @property
    def text(self) -> str:
        """Text of the completion."""

    @property
    def token_ids(self) -> Sequence[int]:
        """Tokens of the completion."""

    @property
    def finish_reason(self) -> str | None:
        """Reason why it ended, if it has."""


class EngineOutput(Protocol):
    """vLLM's `RequestOutput`."""

    @property
    def outputs(self) -> Sequence[Completion]:
        """Completions so far, or their latest parts."""

    @property
    def finished(self) -> bool:
        """Whether it is the last."""

    @property
    def num_cached_tokens(self) -> int | None:
        """Tokens of the prompt that were in the KV cache."""

    @property
    def metrics(self) -> RequestTimes | None:
        """Times of the request, if the engine keeps statistics."""


class PoolingOutput(Protocol):
    """vLLM's `PoolingRequestOutput`."""

    @property
    def finished(self) -> bool:
        """Whether it is the last."""

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompt that were in the KV cache."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """First token of a request that has given no output yet."""

    cached_tokens: int
    times: RequestTimes | None


_O = TypeVar("_O", bound=EngineOutput)
_P = TypeVar("_P", bound=PoolingOutput)


class RequestObserver:
    """Observes an engine client, and reports its requests to `tracker`."""

    def __init__(self, tracker: EngineTracker) -> None:
        self._tracker = tracker
        self._waiting, self._used_share = 0, 0.0
        """Values that were reported last."""
        self._without_output: dict[_ObservedRequest, str] = {}
        """Requests that have given no output yet, and their ids, which clients choose."""

    @property
    def priority(self) -> int:
        """Priority of the HTTP request that this is called in; 0 if it has none."""
        call = current_call()
        return call.dispatch.priority if call and call.dispatch else 0

    def generate(
        self,
        outputs: AsyncGenerator[_O, None],
        prompt: object,
        request_id: str,
        *,
        is_delta: bool,
        sequences: int = 1,
    ) -> AsyncGenerator[_O, None]:
        """Outputs of a call, observed as they pass.

        `is_delta`: each output has the latest part of a completion, and not all of it. `sequences`:
        completions of the prompt.
        """
        request = _ObservedRequest(self._tracker, prompt, is_delta=is_delta, sequences=sequences)
        return self._generate(outputs, request, request_id)

    def encode(self, outputs: AsyncGenerator[_P, None], prompt: object) -> AsyncGenerator[_P, None]:
        """Outputs of a pooling call, observed as they pass."""
        return self._encode(outputs, _ObservedRequest(self._tracker, prompt, is_delta=False))

    def record_cache_reset(self) -> None:
        """Report that the engine has emptied its cache."""
        with _logged_only():
            self._tracker.record_cache_reset()

    def record_step(
        self, waiting: int, used_share: float, find: Callable[[str], FirstToken | None]
    ) -> None:
        """Report a step: the requests that wait, and those with a first token but no output yet.

        `used_share`: of the KV cache; `find` looks up a request's first token by its id.
        """
        self._tracker.record_progress()
        is_changed = abs(used_share - self._used_share) > REPORTED_CHANGE
        if is_changed or waiting != self._waiting:
            self._waiting, self._used_share = waiting, used_share
            self._tracker.record_load_change()
        for request, request_id in list(self._without_output.items()):
            if first := find(request_id):
                del self._without_output[request]
                request.record_first_token(first.cached_tokens, first.times)

    async def _generate(
        self, outputs: AsyncGenerator[_O, None], request: "_ObservedRequest", request_id: str
    ) -> AsyncGenerator[_O, None]:
        request.record_arrival()
        self._without_output[request] = request_id
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    self._without_output.pop(request, None)
                    request.record_output(output)
                    yield output
            finally:
                self._without_output.pop(request, None)
                request.record_end()

    async def _encode(
        self, outputs: AsyncGenerator[_P, None], request: "_ObservedRequest"
    ) -> AsyncGenerator[_P, None]:
        request.record_arrival()
        async with contextlib.aclosing(outputs):
            try:
                async for output in outputs:
                    request.record_pooled(output)
                    yield output
            finally:
                request.record_end()


@dataclass(slots=True)
class _CompletionText:
    """One completion as it grows."""

    tokens: int = 0
    texts: list[str] = field(default_factory=list)
    ids: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, completion: Completion, *, is_delta: bool, is_ids: bool) -> None:
        """Add what an output has of it."""
        if not is_delta:
            self.tokens, self.texts, self.ids = 0, [], array("I")
        self.tokens += len(completion.token_ids)
        if is_ids:
            self.ids.extend(completion.token_ids)
        elif completion.text:
            self.texts.append(completion.text)

    @property
    def canonical(self) -> bytes:
        """The completion as part of a later prompt: text, or four bytes for each token id."""
        return self.ids.tobytes() or "".join(self.texts).encode(errors="surrogatepass")


class _ObservedRequest:
    """One call of the engine client. Its methods never raise: errors are logged."""

    def __init__(
        self, tracker: EngineTracker, prompt: object, *, is_delta: bool, sequences: int = 1
    ) -> None:
        call = current_call()
        self._dispatch = call.claim_dispatch() if call else None
        self._usage = current_usage()
        self._tracker = tracker
        self._prompt = prompt
        self._is_delta = is_delta
        self._sequences = sequences
        self._tracked: TrackedRequest | None = None
        self._has_first_token = self._is_over = False
        self._completions: dict[int, _CompletionText] = {}

    def record_arrival(self) -> None:
        """Report that the engine gets the request now."""
        with _logged_only():
            self._tracked = self._tracker.record_arrival(
                self._dispatch,
                prompt_tokens(self._prompt),
                self._sequences,
                call=self._usage,
            )
        self._prompt = None  # it may be large

    def record_first_token(self, cached_tokens: int, times: RequestTimes | None) -> None:
        """Report that the request has its first token."""
        self._has_first_token = True
        with _logged_only():
            if self._tracked is not None:
                scheduled_s = (times.scheduled_ts or None) if times else None
                first_token_s = (times.first_token_ts or None) if times else None
                self._tracker.record_first_token(
                    self._tracked, cached_tokens, scheduled_s, first_token_s
                )

    def record_output(self, output: EngineOutput) -> None:
        """Report an output of the request."""
        if self._tracked is None or self._is_over:
            return
        with _logged_only():
            self._tracker.record_progress()
            # An engine that fails or aborts a request says so without a token.
            if not self._has_first_token and any(o.token_ids for o in output.outputs):
                self.record_first_token(output.num_cached_tokens or 0, output.metrics)
            self._collect(output.outputs)
            if output.finished:
                is_aborted = any(o.finish_reason == "abort" for o in output.outputs)
                self._finish(is_aborted=is_aborted or not self._has_first_token)

    def record_pooled(self, output: PoolingOutput) -> None:
        """Report the vector of a pooling request."""
        with _logged_only():
            if self._tracked is not None and output.finished and not self._is_over:
                self._is_over = True
                self._tracker.record_pooled(self._tracked, output.num_cached_tokens)

    def record_end(self) -> None:
        """Report the request as aborted, unless it has finished."""
        with _logged_only():
            self._finish(is_aborted=True)

    def _collect(self, completions: Sequence[Completion]) -> None:
        is_ids = self._dispatch is not None and self._dispatch.is_token_ids
        for completion in completions:
            text = self._completions.setdefault(completion.index, _CompletionText())
            text.add(completion, is_delta=self._is_delta, is_ids=is_ids)

    def _finish(self, *, is_aborted: bool) -> None:
        if self._tracked is None or self._is_over:
            return
        self._is_over = True
        texts = self._completions.values()
        self._tracker.record_finished(
            self._tracked,
            sum(text.tokens for text in texts),
            [text.canonical for text in texts],
            is_aborted=is_aborted,
        )


def prompt_tokens(prompt: object) -> int:
    """Length of a prompt in any of the forms that vLLM's routes pass on; 0 if unknown."""
    if not isinstance(prompt, Mapping):
        return len(getattr(prompt, "prompt_token_ids", None) or ())
    if "decoder_prompt" in prompt:
        return prompt_tokens(prompt["decoder_prompt"])
    ids = prompt.get("prompt_token_ids")
    return len(prompt.get("prompt_embeds", ()) if ids is None else ids)


@contextlib.contextmanager
def _logged_only() -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("engine telemetry failed for one request, which is not affected")
