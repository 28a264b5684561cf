"""Check of an input file, line by line: what is wrong with it, before any of it runs.

Memory: 8 bytes of hash for each `custom_id`, as a Python set has them (some 70 MB for a million
lines), and the first `MAX_ERRORS` errors. Two ids that differ have the same hash once in some ten
million files of a million lines.
"""

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.batch.input_lines import InputLine
from gateway.config.batches import BatchesConfig
from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import shown_model
from gateway.request.head import RequestHead
from gateway.request.routes import parse_head

MAX_ERRORS = 100
"""Errors that are listed of one file; the check ends with the last of them."""
MAX_CUSTOM_ID = 512
"""Characters of a `custom_id`."""
MAX_MESSAGE = 1000
"""Characters of a message, which may quote a line."""
MAX_EMBEDDING_INPUTS = 50_000
"""Texts to embed of all lines together for each 50,000 lines that a file may have, as OpenAI has
it."""
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
EMBEDDINGS = "/v1/embeddings"
REQUIRED = ("custom_id", "method", "url", "body")


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an input file, or with one line of it."""

    code: str
    message: str
    line: int | None = None
    """Number of the line, from 1; None if it is the whole file."""
    param: str | None = None


class CheckedLine(msgspec.Struct, frozen=True):
    """A valid line of an input file."""

    line: InputLine
    custom_id: str
    body: bytes
    """JSON of the request."""
    head: RequestHead


class RequestLine(msgspec.Struct, frozen=True):
    """A line of an input file as JSON; a field that is missing is unset."""

    custom_id: str | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    url: str | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


decode_line = msgspec.json.Decoder(RequestLine).decode
"""Read a line; raises `msgspec.MsgspecError` or `UnicodeDecodeError` if it is none."""


class InvalidLine(Exception):
    """A line cannot run."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(code, message, param)
        self.code = code
        self.message = message
        self.param = param


class InputCheck:
    """Check of one input file, whose lines come in their order.

    `endpoint`: the route that all of its requests are for.
    """

    def __init__(self, endpoint: str, config: BatchesConfig) -> None:
        self.errors: list[BatchError] = []
        self.lines = 0
        """Lines so far, valid or not."""
        self.model = ""
        """Model of all requests; empty before the first."""
        self._endpoint = endpoint
        self._config = config
        self._ids: set[int] = set()
        self._inputs = 0

    @property
    def is_over(self) -> bool:
        """Whether the rest of the file changes nothing any more."""
        return len(self.errors) >= MAX_ERRORS or self.lines > self._config.max_lines

    def check(self, line: InputLine) -> CheckedLine | None:
        """Check the next line; None if it has an error, which is noted."""
        self.lines += 1
        if self.lines > self._config.max_lines:
            self._note(
                "too_many_tasks",
                f"The file has more than {self._config.max_lines:,} requests.",
            )
            return None
        try:
            return self._checked(line)
        except InvalidLine as error:
            self._note(error.code, error.message, line.number, error.param)
        return None

    def finish(self) -> None:
        """Note what is wrong with the file as a whole, once all lines have been checked."""
        if not self.lines:
            self._note("empty_file", "The file has no requests.")
        elif self._inputs > (most := self._most_inputs):
            self._note(
                "too_many_inputs",
                f"The requests have {self._inputs:,} texts to embed; at most {most:,} are allowed.",
            )

    @property
    def _most_inputs(self) -> int:
        return max(MAX_EMBEDDING_INPUTS, self._config.max_lines)

    def _checked(self, line: InputLine) -> CheckedLine:
        if line.data is None:
            raise InvalidLine(
                "line_too_long",
                f"The line has {line.length:,} bytes; at most {self._config.max_line_mb:g} MB are"
                " allowed.",
            )
        custom_id, body = self._envelope(line.data)
        head = self._head(body)
        self._check_model(head.model)
        self._check_id(custom_id)
        if self._endpoint == EMBEDDINGS:
            self._inputs += head.prompts
        return CheckedLine(line, custom_id, body, head)

    def _envelope(self, data: bytes) -> tuple[str, bytes]:
        try:
            found = decode_line(data)
        except msgspec.ValidationError as error:
            raise InvalidLine("invalid_request", f"The line is invalid: {error}.") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise InvalidLine(
                "invalid_json_line", "This line is not parseable as valid JSON."
            ) from None
        for name in REQUIRED:
            if getattr(found, name) is msgspec.UNSET:
                raise InvalidLine(
                    "missing_required_parameter", f"Missing required parameter: `{name}`.", name
                )
        custom_id = str(found.custom_id)
        if not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            message = f"`custom_id` must have 1 to {MAX_CUSTOM_ID} characters."
            raise InvalidLine("invalid_custom_id", message, "custom_id")
        if found.method != "POST":
            raise InvalidLine("invalid_method", "`method` must be `POST`.", "method")
        if found.url != self._endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            raise InvalidLine("mismatched_url", message, "url")
        return custom_id, bytes(found.body) if isinstance(found.body, msgspec.Raw) else b""

    def _head(self, body: bytes) -> RequestHead:
        try:
            head = parse_head(self._endpoint, body, b"application/json")
        except GatewayError as error:
            param = f"body.{error.param}" if error.param else "body"
            raise InvalidLine(error.code, error.message, param) from None
        if head.is_stream:
            message = "Streaming is not supported in the Batch API."
            raise InvalidLine("invalid_request", message, "body.stream")
        return head

    def _check_model(self, model: str) -> None:
        self.model = self.model or model
        if model != self.model:
            message = (
                "All requests of a batch must be for one model; the first one is for"
                f" `{shown_model(self.model)}`."
            )
            raise InvalidLine("mismatched_model", message, "body.model")

    def _check_id(self, custom_id: str) -> None:
        digest = xxh3_64_intdigest(custom_id.encode("utf-8", "surrogatepass"))
        if digest in self._ids:
            message = "The custom_id for this request is a duplicate of another request."
            raise InvalidLine("duplicate_custom_id", message, "custom_id")
        self._ids.add(digest)

    def _note(
        self, code: str, message: str, line: int | None = None, param: str | None = None
    ) -> None:
        message = message[:MAX_MESSAGE]
        self.errors.append(BatchError(code=code, message=message, line=line, param=param))
