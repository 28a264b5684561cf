"""Tools of a request, and arguments of their calls, as an engine renders them.

vLLM fills a model of its own with each tool, which has five fields, and renders that: all other
fields (such as `cache_control`), their order and their spelling are lost. Arguments of calls are
parsed and written anew.

Source: vLLM 0.32, `vllm/entrypoints/generate/base/protocol.py`, `vllm/tool_parsers/utils.py`.
"""

from collections import OrderedDict

import msgspec
from xxhash import xxh3_128_digest

from gateway.kvcache.json_text import decode_list, is_costly, normal_json
from gateway.request.raw_fields import ABSENT

MAX_TOOLS = 4096
"""Tools that are told apart; more are taken as they were written."""
MAX_TOOLS_BYTES = 1 << 22
"""Tools of more bytes are taken as they were written, up to here."""
CACHED_TEXTS = 64
CACHED_BYTES = 1 << 20
"""Size of the tools that are cached; larger ones are read anew every time."""
_NO_ARGUMENTS = b"{}"


class _RenderedFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    defer_loading: bool | None = None


class _Tool(msgspec.Struct):
    """A tool in the form of any of the three APIs."""

    type: str | None = None
    function: _RenderedFunction | None = None
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None
    defer_loading: bool | None = None
    tools: list[_RenderedFunction] = []


_tool_decoder = msgspec.json.Decoder(_Tool)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


class ToolTexts:
    """Canonical texts of the tools that were read last: agents send the same ones every time."""

    def __init__(self) -> None:
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        """Number of cached texts."""
        return len(self._texts)

    def read(self, raw: msgspec.Raw) -> bytes:
        """Canonical text of a request's tools."""
        if len(raw) > CACHED_BYTES:
            return tools_text(raw)
        digest = xxh3_128_digest(memoryview(raw))
        text = self._texts.pop(digest, None)
        if text is None:
            text = tools_text(raw)
            if len(self._texts) >= CACHED_TEXTS:
                self._texts.popitem(last=False)
        self._texts[digest] = text
        return text


def tools_text(raw: msgspec.Raw) -> bytes:
    """Canonical text of a request's tools: those that are rendered, in one form."""
    if len(raw) > MAX_TOOLS_BYTES:
        return bytes(memoryview(raw)[:MAX_TOOLS_BYTES])
    try:
        tools = decode_list(raw)
        if len(tools) > MAX_TOOLS:
            return bytes(raw)
        return b"\n".join(filter(None, map(_tool, tools)))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return bytes(raw)


def normal_arguments(raw: msgspec.Raw) -> bytes:
    """Arguments of a call, as an object or as its JSON in a string; whatever is neither is `{}`."""
    text = bytes(raw)
    if text[:1] == b'"':
        text = _text_decoder.decode(raw).encode()
    if is_costly(text):
        return text
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _NO_ARGUMENTS
    return msgspec.json.encode(value) if isinstance(value, dict) else _NO_ARGUMENTS


def _tool(raw: msgspec.Raw) -> bytes:
    """Canonical text of a tool; empty if it is none that is rendered."""
    try:
        tool = _tool_decoder.decode(raw)
    except msgspec.ValidationError:
        return normal_json(raw)
    if tool.type == "custom" and tool.input_schema is ABSENT:
        return msgspec.json.encode((tool.name, tool.description, "custom"))
    if tool.type == "namespace":
        return b"\n".join(_function(each, prefix=f"{tool.name}__") for each in tool.tools)
    if function := tool.function or _flat_function(tool):
        return _function(function, defer_loading=tool.defer_loading)
    return normal_json(raw) if tool.type is None else b""


def _flat_function(tool: _Tool) -> _RenderedFunction | None:
    """The function of a tool in Anthropic's form, or in that of OpenAI's Responses API."""
    if tool.input_schema is not ABSENT:
        parameters = _with_type(tool.input_schema)
    elif tool.type == "function":
        parameters = tool.parameters
    else:
        return None
    return _RenderedFunction(tool.name, tool.description, parameters, tool.strict)


def _function(
    function: _RenderedFunction, *, prefix: str = "", defer_loading: bool | None = None
) -> bytes:
    parameters = b"null" if function.parameters is ABSENT else normal_json(function.parameters)
    if function.defer_loading is not None:
        defer_loading = function.defer_loading
    fields = (prefix + function.name, function.description, msgspec.Raw(parameters))
    if function.strict is None and defer_loading is None:
        return msgspec.json.encode(fields)
    return msgspec.json.encode((*fields, function.strict, defer_loading))


def _with_type(schema: msgspec.Raw) -> msgspec.Raw:
    """A JSON schema with the type that vLLM adds to schemas without one."""
    fields = _object_decoder.decode(schema)
    if "type" in fields:
        return schema
    return msgspec.Raw(msgspec.json.encode({**fields, "type": "object"}))
