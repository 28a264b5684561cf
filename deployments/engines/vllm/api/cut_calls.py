"""Calls in answers that are cut off: a call that has begun is still a call.

vLLM's parsers of whole answers find no call in half of one, and give its text as it is. Those of
streams do, as a part is all that they ever have.
"""

from collections.abc import Sequence
from typing import Any

from vllm.entrypoints.generate.base.protocol import FunctionCall, ToolCall


def cut_calls(parser: Any, output: Any, request: Any) -> tuple[list[ToolCall], Any]:  # noqa: ANN401
    """Read an answer that is cut off as a stream's; its calls, and the rest as vLLM's delta.

    `parser`: one of vLLM's that has read nothing yet.
    """
    delta = parser.parse_delta(
        delta_text=output.text,
        delta_token_ids=list(output.token_ids),
        request=request,
        prompt_token_ids=[],
        finished=False,  # vLLM completes the arguments of what is finished
    )
    calls = _joined(delta.tool_calls) if delta else []
    if request.parallel_tool_calls is False:
        calls = calls[:1]
    return calls, delta


def empty_call(name: str) -> ToolCall:
    """A call that was cut off before its arguments."""
    return ToolCall(function=FunctionCall(name=name, arguments=""))


def _joined(deltas: Sequence[Any]) -> list[ToolCall]:
    """The calls of which a stream has these parts."""
    calls: dict[int, ToolCall] = {}
    for delta in deltas:
        function = delta.function
        if function is not None and function.name and delta.index not in calls:
            call = empty_call(function.name)
            if delta.id:
                call.id = delta.id
            calls[delta.index] = call
        if function is not None and delta.index in calls:
            calls[delta.index].function.arguments += function.arguments or ""
    return list(calls.values())
