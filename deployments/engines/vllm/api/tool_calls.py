"""Calls of tools in answers: their ids, and the texts that are the input of custom tools."""

import json

CALL = "call_"
VLLM_CALL = "chatcmpl-tool-"
"""How vLLM's ids of calls begin; those that a model needs to see again begin otherwise."""
_OPENING = '"input"'
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def call_id(made: str, beginning: str = CALL) -> str:
    """The id of a call as OpenAI writes it, or with the beginning that another API has."""
    return beginning + made[len(VLLM_CALL) :] if made.startswith(VLLM_CALL) else made


def custom_input(arguments: str) -> str:
    """The text in the arguments of a custom tool; of arguments that are cut off, its beginning."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return InputText().feed(arguments)
    text = value.get("input") if isinstance(value, dict) else value
    return text if isinstance(text, str) else arguments


class InputText:
    """The text in the arguments of a custom tool, as they come in."""

    def __init__(self) -> None:
        self._rest = ""
        self._is_begun = self._is_ended = False

    def feed(self, arguments: str) -> str:
        """Return what the next part of the arguments adds to the text."""
        if self._is_ended:
            return ""
        self._rest += arguments
        if not self._is_begun and not self._begin():
            return ""
        text, self._rest, self._is_ended = _read_string(self._rest)
        return text

    def _begin(self) -> bool:
        _, found, rest = self._rest.partition(_OPENING)
        value = rest.lstrip().removeprefix(":").lstrip()
        if not found or not value.startswith('"'):
            return False
        self._rest, self._is_begun = value[1:], True
        return True


def _read_string(source: str) -> tuple[str, str, bool]:
    """The string up to its end or the cut, what cannot be read yet, and whether it has ended."""
    text: list[str] = []
    place = 0
    while place < len(source):
        character = source[place]
        if character == '"':
            return "".join(text), "", True
        if character != "\\":
            text.append(character)
            place += 1
            continue
        length = _escape_length(source, place)
        if place + length > len(source):
            break
        text.append(_unescaped(source[place : place + length]))
        place += length
    return "".join(text), source[place:], False


def _escape_length(source: str, place: int) -> int:
    if source[place + 1 : place + 2] != "u":
        return 2
    is_pair = source[place + 2 : place + 4].lower() in ("d8", "d9", "da", "db")
    return 12 if is_pair else 6


def _unescaped(escape: str) -> str:
    try:
        return str(json.loads(f'"{escape}"'))
    except ValueError:
        return _ESCAPES.get(escape[1], escape[1:])
