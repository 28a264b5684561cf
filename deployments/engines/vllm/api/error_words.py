"""What vLLM says of a request that it refuses, in OpenAI's words and with its codes."""

import re
from collections.abc import Callable, Sequence

from deployments.engines.vllm.api.grammar_fields import STRUCTURED_OUTPUTS, grammar_field
from deployments.engines.vllm.api.invalid_values import out_of_bounds, refused, wrong_length
from gateway.errors.gateway_error import ErrorDetail

EXTRAS = re.compile(r" \((?:parameter=(?P<param>[^,()]*))?(?:, )?(?:value=.*)?\)$", re.DOTALL)
"""What vLLM's exceptions add to their sentence."""
INTERNALS = re.compile(
    r"--[a-z][a-z-]+|\bVLLM_[A-Z_]+|errors\.pydantic\.dev|<path>|\bat 0x[0-9a-f]"
)
"""Words for an operator: flags, environment variables, pages of libraries, paths."""
PYTHON = re.compile(
    r"\bNoneType\b|<class |Traceback|\b\w+(?:Error|Exception)\b[:(]"
    r"|'[\w.]+' object |\bobject (?:has no attribute|is not (?:iterable|subscriptable|callable))"
    r"|has no attribute '|unhashable type|index out of range|unsupported operand type"
    r"|(?:not enough|too many) values to unpack|invalid literal for |could not convert "
    r"|(?:argument|arguments|indices) must be |must be str, not |expected str instance"
    r"|\bnot supported between instances|positional argument|unexpected keyword|codec can't "
    r"|maximum recursion depth|\{'\w+': |\.py\b"
)
"""Words of Python's own, about objects that no client knows of."""
OTHER_FORM = "Part of the request has another form than expected."
"""All that is known where code fails that reads a request, and nothing has said why."""
PROMPTS = {
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
    "/v1/responses/input_tokens": "input",
    "/v1/rerank": "documents",
    "/tokenize": "prompt",
}
"""Field that holds the prompt, by path; elsewhere it is `messages`."""
UNSAID = re.compile(r"Invalid grammar specification: '\w+'$")
"""A `KeyError` of the compiler of grammars."""
GRAMMARS = {"/v1/responses": "text.format", "/v1/messages": "output_config.format"}
"""The field that a client has used, by path, where nothing else is known."""
NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?)"

Rule = Callable[[re.Match[str], str | None, str], ErrorDetail]
"""Makes an error of a sentence, the field that vLLM names, and the path."""


def in_words_of_openai(text: str, param: str | None, path: str) -> ErrorDetail:
    """The error for what vLLM says; `param`: the field that it names, if it does."""
    text, param = _without_extras(text, param)
    if param == STRUCTURED_OUTPUTS:
        param = grammar_field() or GRAMMARS.get(path, param)
    text = text.removeprefix("Value error, ").removeprefix("1 validation error:\n").strip()
    for pattern, rule in RULES:
        if match := pattern.search(text):
            return rule(match, param, path)
    if PYTHON.search(text):
        return refused(OTHER_FORM, param, "invalid_value" if param else None)
    if INTERNALS.search(text):
        return refused("This model does not support the request.", param, "unsupported_value")
    return refused(text, param, "invalid_value" if param else None)


def _without_extras(text: str, param: str | None) -> tuple[str, str | None]:
    if extras := EXTRAS.search(text):
        text, param = text[: extras.start()], extras["param"] or param
    return text, None if param is None else param.removeprefix("body.") or None


def _too_long(match: re.Match[str], _: str | None, path: str) -> ErrorDetail:
    return refused(match.string, PROMPTS.get(path, "messages"), "context_length_exceeded")


def _empty_conversation(_: re.Match[str], __: str | None, path: str) -> ErrorDetail:
    param = PROMPTS.get(path, "messages")
    return wrong_length(param, 1, 0, is_above=False, is_array=True)


def _below(match: re.Match[str], param: str | None, _: str) -> ErrorDetail:
    name, bound, value = match.groups()
    return out_of_bounds(param or name, float(bound), number(value), is_above=False)


def _negative(match: re.Match[str], param: str | None, _: str) -> ErrorDetail:
    name, value = match.groups()
    return out_of_bounds(param or name, 0, number(value), is_above=False)


def _above(match: re.Match[str], param: str | None, _: str) -> ErrorDetail:
    name, bound, value = match.groups()
    return out_of_bounds(param or name, float(bound), number(value), is_above=True)


def _outside(match: re.Match[str], param: str | None, _: str) -> ErrorDetail:
    name, low, high, value = match.groups()
    actual = number(value)
    is_above = actual > float(high)
    bound = float(high if is_above else low)
    return out_of_bounds(param or name, bound, _decimal(actual), is_above=is_above)


def _too_many_logprobs(match: re.Match[str], _: str | None, path: str) -> ErrorDetail:
    value, bound = match.groups()
    param = "logprobs" if path == "/v1/completions" else "top_logprobs"
    return out_of_bounds(param, int(bound), int(value), is_above=True)


def _no_tools(_: re.Match[str], __: str | None, ___: str) -> ErrorDetail:
    message = "This model does not choose tools by itself. Name one, or use 'required' or 'none'."
    return refused(message, "tool_choice", "unsupported_value")


def _no_reasoning(_: re.Match[str], param: str | None, ___: str) -> ErrorDetail:
    return refused("This model does not reason.", param or "reasoning", "unsupported_value")


def _bad_grammar(match: re.Match[str], param: str | None, _: str) -> ErrorDetail:
    return refused(UNSAID.sub("it cannot be compiled.", match.string), param, "invalid_value")


def _kinds_of_output(match: re.Match[str], _: str | None, __: str) -> ErrorDetail:
    message = f"'{STRUCTURED_OUTPUTS}' needs one kind of constraint, but has {match[1]}."
    return refused(message, STRUCTURED_OUTPUTS, "invalid_value")


def number(text: str) -> float:
    """The number in a sentence: an integer, or a decimal."""
    text = text.rstrip(".")
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _decimal(value: float) -> float:
    return float(value)


RULES: Sequence[tuple[re.Pattern[str], Rule]] = [
    (re.compile(pattern, re.DOTALL), rule)
    for pattern, rule in (
        (r"maximum context length|maximum model length", _too_long),
        (r"empty conversation", _empty_conversation),
        (rf"(\w+) must be in [\[(]{NUMBER}, {NUMBER}[\])], got {NUMBER}", _outside),
        (rf"(\w+) must be at least {NUMBER}, got {NUMBER}", _below),
        (rf"(\w+) must be greater than or equal to {NUMBER}, got {NUMBER}", _below),
        (rf"(\w+) must be non-negative(?: or -1)?, got {NUMBER}", _negative),
        (rf"(\w+) must be at most {NUMBER}, got {NUMBER}", _above),
        (r"logprobs of (\d+), which is greater than max allowed: (\d+)", _too_many_logprobs),
        (r"tool choice requires --|--tool-call-parser", _no_tools),
        (r"reasoning[-_ ](?:config|parser)", _no_reasoning),
        (r"^the grammar is refused", _bad_grammar),
        (r"one kind of (?:structured outputs )?constraint but (none|multiple)", _kinds_of_output),
    )
]
