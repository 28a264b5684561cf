"""The object of a response that has not begun: what its client has asked for."""

import msgspec

from gateway.request.inference_request import InferenceRequest
from gateway.responses.plan import ResponsePlan
from gateway.responses.response_edits import EMPTY, Fields, edit_object, to_raw

DEFAULTS: Fields = {
    name: msgspec.Raw(text)
    for name, text in {
        "frequency_penalty": b"0.0",
        "instructions": b"null",
        "max_output_tokens": b"null",
        "max_tool_calls": b"null",
        "parallel_tool_calls": b"true",
        "presence_penalty": b"0.0",
        "prompt_cache_key": b"null",
        "reasoning": b'{"effort":null,"summary":null}',
        "safety_identifier": b"null",
        "service_tier": b'"auto"',
        "temperature": b"1.0",
        "text": b'{"format":{"type":"text"},"verbosity":"medium"}',
        "tool_choice": b'"auto"',
        "tools": b"[]",
        "top_logprobs": b"0",
        "top_p": b"1.0",
        "truncation": b'"disabled"',
        "metadata": b"{}",
    }.items()
}
"""Fields that repeat those of a request, and what they are without."""
_NULL = msgspec.Raw(b"null")
_fields = msgspec.json.Decoder(Fields)


def queued_object(request: InferenceRequest, plan: ResponsePlan, now_s: int) -> Fields:
    """The object of a response that waits for its turn."""
    given = _fields.decode(request.body)
    asked = {
        name: given[name] if given.get(name, _NULL) != _NULL else default
        for name, default in DEFAULTS.items()
    }
    fields: Fields = {
        "id": _NULL,
        "object": to_raw("response"),
        "created_at": to_raw(now_s),
        "status": to_raw("queued"),
        "completed_at": _NULL,
        "error": _NULL,
        "incomplete_details": _NULL,
        "model": to_raw(request.head.model),
        "output": EMPTY,
        "usage": _NULL,
        **asked,
    }
    return edit_object(fields, plan, is_kept=True)
