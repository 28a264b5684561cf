"""Keeps slots of an engine free of the further sequences of large requests.

A request may have more sequences (`n`, a list of prompts) than the engine has slots. In vLLM 0.32
they take every slot, mostly all at once, and end at once: a small request that comes next is the
first in vLLM's queue, and still waits for as long as a whole answer. So an eighth of the slots, and
at least two, is left to first sequences. Further ones wait here for the others, and start as those
end; among several requests, that with the fewest of them running goes first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from deployments.engines.call import CallContext, current_call
from gateway.routing.engine_limits import further_sequences


class SequenceGate:
    """Gate before an engine core with a number of slots.

    vLLM's loop of outputs holds on to the core's client, so methods of the client are replaced, and
    not the client: those through which all sequences, aborts and outputs pass.
    """

    def __init__(self, core: Any, slots: int) -> None:  # noqa: ANN401 - `AsyncMPClient`
        self._add, self._abort = core.add_request_async, core.abort_requests_async
        self._get_output = core.get_output_async
        core.add_request_async, core.abort_requests_async = self.add, self.abort
        core.get_output_async = self.get_output
        self._most = further_sequences(slots)
        self._waiting: dict[str, int] = {}
        """By sequence, its call."""
        self._queues: dict[int, dict[str, Any]] = {}
        """By call, the sequences of it that wait."""
        self._running: dict[str, CallContext] = {}
        self._counts: Counter[int] = Counter()
        """By call, how many of its sequences run that have waited here."""
        self._calls: dict[int, CallContext] = {}
        """Calls of which sequences wait; they are told apart by their identity."""

    @property
    def waiting(self) -> int:
        """Sequences that wait here."""
        return len(self._waiting)

    async def add(self, request: Any) -> None:  # noqa: ANN401 - `EngineCoreRequest`
        """Hand a sequence over, or keep it until it may start."""
        call = current_call()
        if call is None or request.pooling_params is not None or request.resumable:
            await self._add(request)
        elif call.has_sequence:
            self._waiting[request.request_id] = id(call)
            self._calls[id(call)] = call
            self._queues.setdefault(id(call), {})[request.request_id] = request
            await self._start_next()
        else:
            call.has_sequence = True
            await self._add(request)

    async def abort(self, request_ids: list[str]) -> None:
        """End sequences, also those that wait here."""
        await self._abort(request_ids)
        await self._forget(request_ids)

    async def get_output(self) -> Any:  # noqa: ANN401 - `EngineCoreOutputs`
        """Outputs of a step; the places of sequences that have ended go to the next."""
        outputs = await self._get_output()
        if self._running:
            ended = [each.request_id for each in outputs.outputs if each.finish_reason is not None]
            await self._forget(ended)
        return outputs

    async def _forget(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            if request_id in self._waiting:
                self._take(request_id)
            elif call := self._running.pop(request_id, None):
                self._counts[id(call)] -= 1
                if not self._counts[id(call)]:
                    del self._counts[id(call)]
        await self._start_next()

    async def _start_next(self) -> None:
        while self._waiting and len(self._running) < self._most:
            of_call = min(self._queues, key=self._counts.__getitem__)
            first = next(iter(self._queues[of_call]))
            self._running[first] = self._calls[of_call]
            self._counts[of_call] += 1
            await self._add(self._take(first))

    def _take(self, request_id: str) -> Any:  # noqa: ANN401 - `EngineCoreRequest`
        """Take a sequence out of those that wait."""
        of_call = self._waiting.pop(request_id)
        queue = self._queues[of_call]
        request = queue.pop(request_id)
        if not queue:
            del self._queues[of_call], self._calls[of_call]
        return request
