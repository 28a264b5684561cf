"""Calls in answers that are cut off: a call that has begun is still a call, and an open one.

vLLM's parsers of whole answers find no call in half of one, and give its text as it is. Those of
streams do, as a part is all that they ever have; but they complete what is cut off to valid JSON,
so that half a call looks like a whole one.
"""

from collections.abc import Callable, Sequence
from typing import Any

from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    FunctionCall,
    ToolCall,
)
from vllm.renderers.chat_utils import make_tool_call_id


def cut_answer(
    parser: Any,  # noqa: ANN401 - vLLM's, which has read nothing yet
    output: Any,  # noqa: ANN401 - vLLM's
    request: Any,  # noqa: ANN401 - vLLM's
    forced: str | None,
) -> tuple[list[ToolCall], DeltaMessage]:
    """The calls of an answer that is cut off, and the rest of it, as a stream has them.

    `forced`: the tool that it has to call, if that is known.
    """
    delta: DeltaMessage | None = parser.parse_delta(
        delta_text=output.text,
        delta_token_ids=list(output.token_ids),
        request=request,
        prompt_token_ids=[],
        finished=False,  # vLLM completes the arguments of what is finished
    )
    if forced and not _says_something(delta):
        delta = _begun(forced)
    delta = delta or DeltaMessage()
    calls = _joined(delta.tool_calls)
    return calls[:1] if request.parallel_tool_calls is False else calls, delta


def leave_open(parser: Any, is_cut: Callable[[], bool], forced: str | None) -> None:  # noqa: ANN401
    """Have the parser of a stream leave a call open that is cut off.

    `is_cut`: whether what it parses is the end of an answer that is cut off. `forced`: the tool
    that the answer has to call, if that is known; it is cut off before it has named it.
    """
    parse_delta = parser.parse_delta
    has_output = False

    def parse(*args: Any, finished: bool, **named: Any) -> DeltaMessage | None:  # noqa: ANN401
        nonlocal has_output
        is_last = finished and is_cut()
        if is_last and parser.tool_parser is not None:
            parser.tool_parser.get_remaining_unstreamed_args = str  # none
        delta: DeltaMessage | None = parse_delta(*args, finished=finished, **named)
        has_output = has_output or _says_something(delta)
        return _begun(forced) if is_last and forced and not has_output else delta

    parser.parse_delta = parse


def _says_something(delta: DeltaMessage | None) -> bool:
    return delta is not None and bool(delta.content or delta.reasoning or delta.tool_calls)


def _begun(name: str) -> DeltaMessage:
    """The first part of a call that was cut off before its arguments."""
    function = DeltaFunctionCall(name=name, arguments="")
    call = DeltaToolCall(index=0, id=make_tool_call_id(), type="function", function=function)
    return DeltaMessage(tool_calls=[call])


def _joined(deltas: Sequence[DeltaToolCall]) -> list[ToolCall]:
    """The calls of which a stream has these parts."""
    calls: dict[int, ToolCall] = {}
    for delta in deltas:
        function = delta.function
        if function is not None and function.name and delta.index not in calls:
            call = ToolCall(function=FunctionCall(name=function.name, arguments=""))
            if delta.id:
                call.id = delta.id
            calls[delta.index] = call
        if function is not None and delta.index in calls:
            calls[delta.index].function.arguments += function.arguments or ""
    return list(calls.values())
