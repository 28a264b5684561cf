"""The chat completion that the chunks of a stream amount to."""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.upstream.sse import event_data, split_events

Json = dict[str, Any]
JOINED = ("content", "refusal", "reasoning", "reasoning_content")
"""Fields of a delta that are texts to be joined."""
KEPT = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")
_chunk = msgspec.json.Decoder(Json)


def assembled_chat(events: bytes) -> Json | None:
    """The whole answer of a stream of chunks; None if it has none, or ends with an error."""
    answer: Json = {"object": "chat.completion"}
    choices: dict[int, Json] = {}
    for chunk in _chunks(events):
        if "error" in chunk:
            return None
        answer |= {name: chunk[name] for name in KEPT if chunk.get(name) is not None}
        for choice in chunk.get("choices") or ():
            _add_choice(choices, choice)
    if "id" not in answer or not choices:
        return None
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


def _chunks(events: bytes) -> Iterable[Json]:
    for event in split_events(events):
        data = event_data(event)
        if data[:1] == b"{":
            try:
                yield _chunk.decode(data)
            except msgspec.MsgspecError:
                continue


def _add_choice(choices: dict[int, Json], choice: Json) -> None:
    index = choice.get("index") or 0
    whole = choices.setdefault(
        index,
        {
            "index": index,
            "message": {"role": "assistant", "content": None, "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        },
    )
    _add_delta(whole["message"], choice.get("delta") or {})
    if choice.get("finish_reason") is not None:
        whole["finish_reason"] = choice["finish_reason"]
    if (logprobs := choice.get("logprobs")) is not None:
        joined = whole["logprobs"] or {"content": [], "refusal": None}
        joined["content"] = [*joined["content"], *(logprobs.get("content") or ())]
        whole["logprobs"] = joined


def _add_delta(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        if value is None or name == "role":
            continue
        if name in JOINED:
            message[name] = (message.get(name) or "") + value
        elif name == "tool_calls":
            for call in value:
                _add_call(message.setdefault("tool_calls", []), call)
        elif name == "function_call":
            _join(message.setdefault("function_call", {"name": "", "arguments": ""}), value)
        else:
            message[name] = value


def _add_call(calls: list[Json], part: Json) -> None:
    index = part.get("index", len(calls))
    while len(calls) <= index:
        calls.append({"id": "", "type": "function"})
    call = calls[index]
    for name in ("id", "type"):
        if part.get(name):
            call[name] = part[name]
    for name in ("function", "custom"):
        if part.get(name):
            _join(call.setdefault(name, {}), part[name])


def _join(whole: Json, part: Json) -> None:
    """Join the texts of parts; a name comes whole."""
    for name, value in part.items():
        if value is not None:
            whole[name] = value if name == "name" else whole.get(name, "") + value
