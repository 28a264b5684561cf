"""Streams whose first event is the client's error.

vLLM 0.32 validates a streamed request after it has sent a head of 200, so the refusal of a grammar
comes as an event; the same request without `stream` gets 400. Routers send their head no earlier.
"""

import msgspec

STATUS_OF = {"BadRequestError": 400, "NotFoundError": 404, "UnprocessableEntityError": 422}


class _StreamedDetail(msgspec.Struct):
    code: int | str | None = None
    type: str | None = None


class _StreamedError(msgspec.Struct):
    error: _StreamedDetail


_decoder = msgspec.json.Decoder(_StreamedError)


def refusal(chunk: bytes) -> tuple[int, bytes] | None:
    """Status and JSON of the client's error with which a stream begins, if it does."""
    lines = chunk[:4].startswith((b"data", b"even")) and chunk.split(b"\n", 2)
    data = next((line for line in lines or () if line.startswith(b'data: {"')), b"")
    if b'"error"' not in data:
        return None
    body = data.removeprefix(b"data: ").rstrip()
    try:
        error = _decoder.decode(body).error
    except msgspec.MsgspecError:
        return None
    status = error.code if isinstance(error.code, int) else STATUS_OF.get(error.type or "", 0)
    return (status, body) if 400 <= status < 500 else None
