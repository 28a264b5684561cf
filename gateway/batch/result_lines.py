"""Lines of output and error files, as OpenAI has them, and the usage that answers report."""

import secrets

import msgspec

EXPIRED = "batch_expired"
CANCELLED = "batch_cancelled"
MESSAGES = {
    EXPIRED: "This request could not be executed before the completion window expired.",
    CANCELLED: "This request was not executed, because the batch was cancelled.",
}
"""Why a line has not run, by its code."""


class LineResponse(msgspec.Struct, frozen=True):
    """Answer to a line."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct, frozen=True):
    """Why a line has no answer."""

    code: str
    message: str


class ResultLine(msgspec.Struct, frozen=True):
    """A line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: LineError | None


class LineUsage(msgspec.Struct, frozen=True):
    """Tokens that a line, or all lines of a batch, took."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "LineUsage") -> "LineUsage":
        return LineUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0


class _UsageOfAnswer(msgspec.Struct):
    """Usage in either of OpenAI's forms."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _AnswerWithUsage(msgspec.Struct):
    usage: _UsageOfAnswer | None = None


_answers = msgspec.json.Decoder(_AnswerWithUsage)


def answer_line(custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """A line with an answer; a body that is no JSON becomes a JSON string."""
    try:
        # Checked without making objects of it, which would take many times its size.
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
        raw = msgspec.Raw(_on_one_line(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raw = msgspec.Raw(msgspec.json.encode(body.decode(errors="replace")))
    return _encode(ResultLine(_new_id(), custom_id, LineResponse(status, request_id, raw), None))


def unanswered_line(custom_id: str, code: str) -> bytes:
    """A line that has not run; `code`: `EXPIRED` or `CANCELLED`."""
    return _encode(ResultLine(_new_id(), custom_id, None, LineError(code, MESSAGES[code])))


def usage_of(body: bytes) -> LineUsage:
    """The tokens that an answer reports; none if it does not."""
    try:
        usage = _answers.decode(body).usage or _UsageOfAnswer()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return LineUsage()
    given = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
    made = usage.completion_tokens_details or usage.output_tokens_details or _Details()
    return LineUsage(
        input_tokens=usage.prompt_tokens or usage.input_tokens or 0,
        cached_tokens=given.cached_tokens or 0,
        output_tokens=usage.completion_tokens or usage.output_tokens or 0,
        reasoning_tokens=made.reasoning_tokens or 0,
    )


def _on_one_line(body: bytes) -> bytes:
    """JSON without line breaks, which only stand between its values."""
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _encode(line: ResultLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _new_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
