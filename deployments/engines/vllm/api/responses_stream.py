"""The events of a stream of `/v1/responses`, as OpenAI sends them.

Cost: one look-up for an event with a delta, which is then serialized as in vLLM; the
other events, a handful for each item, are made anew.
"""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from deployments.engines.vllm.api.asked_response import AskedResponse
from deployments.engines.vllm.api.responses_answer import output_item, response_object

DELTAS = frozenset(
    {
        *("response.output_text.delta", "response.reasoning_text.delta"),
        *("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"),
    }
)
COMPLETED = "response.completed"
WHOLE = frozenset({"response.created", "response.in_progress", COMPLETED})
PAD = 16
"""Characters to a multiple of which padding lengthens a delta."""


class ResponseEvents:
    """Writes vLLM's events as OpenAI's.

    The end of an item waits for the event after it: only that one says whether the answer was cut.
    """

    def __init__(self, asked: AskedResponse) -> None:
        self._asked = asked
        self._ended: Any = None

    async def write(self, events: AsyncIterator[Any]) -> AsyncIterator[str]:
        """The text of a stream of server-sent events."""
        async for event in events:
            if event.type in DELTAS and not self._asked.is_padded:
                yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"
            else:
                for made in self._made(event):
                    text = msgspec.json.encode(made).decode()
                    yield f"event: {made['type']}\ndata: {text}\n\n"

    def _made(self, event: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - one of many models
        """The events that are due with this one of vLLM's."""
        is_cut = event.type == COMPLETED and event.response.status != "completed"
        made = []
        if (ended := self._ended) is not None:
            self._ended = None
            status = "incomplete" if is_cut else "completed"
            made.append(self._with_item(ended, status))
        if event.type == "response.output_item.done":
            self._ended = event
        elif event.type == "response.output_item.added":
            made.append(self._with_item(event, "in_progress"))
        elif event.type in WHOLE:
            made.append(self._with_response(event, is_cut=is_cut))
        else:
            made.append(self._plain(event))
        return made

    def _with_item(self, event: Any, status: str) -> dict[str, Any]:  # noqa: ANN401
        return {
            "type": event.type,
            "sequence_number": event.sequence_number,
            "output_index": event.output_index,
            "item": output_item(event.item, self._asked, status),
        }

    def _with_response(self, event: Any, *, is_cut: bool) -> dict[str, Any]:  # noqa: ANN401
        return {
            "type": f"response.{event.response.status}" if is_cut else event.type,
            "sequence_number": event.sequence_number,
            "response": response_object(event.response, self._asked),
        }

    def _plain(self, event: Any) -> dict[str, Any]:  # noqa: ANN401 - one of many models
        made: dict[str, Any] = event.model_dump(mode="json", by_alias=True)
        if event.type == "response.content_part.done" and made["part"]["type"] == "output_text":
            made["part"]["logprobs"] = made["part"].get("logprobs") or []
        if event.type in DELTAS:
            made["obfuscation"] = secrets.token_hex(PAD)[: PAD - len(made["delta"]) % PAD]
        return made
