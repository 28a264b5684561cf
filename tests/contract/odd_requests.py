"""Random short requests at the edges of what APIs allow: empty texts, odd orders, odd arguments."""

import random
from collections.abc import Callable

from gateway.request.reasoning_token import make_token
from tests.contract.conversations import CHAT, MESSAGES, RESPONSES, Fields, Spelled

HEADER = "x-anthropic-billing-header: 1"
TEXTS = ["", "a", "b", "ab", "a\nb"]
ARGUMENTS = ["", "{}", '{"a":1}', '{"a": 1}', "[", '"x"']


def text(value: str, kind: str = "text") -> Fields:
    """A text part."""
    return {"type": kind, "text": value}


class OddRequests:
    """Makes up requests of three APIs."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - no secrets

    def next(self) -> Spelled:
        """Return any request."""
        kinds: list[Callable[[], Spelled]] = [self._chat, self._messages, self._responses]
        return self._rng.choice(kinds)()

    def _is(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _content(self, kind: str = "text") -> str | list[Fields]:
        if self._is(0.5):
            return self._rng.choice(TEXTS)
        return [text(self._rng.choice(TEXTS), kind) for _ in range(self._rng.choice([0, 1, 1, 2]))]

    def _chat(self) -> Spelled:
        messages = [self._chat_message() for _ in range(self._rng.randint(1, 3))]
        return CHAT, {"model": "m", "messages": messages}

    def _chat_message(self) -> Fields:
        role = self._rng.choice(["system", "developer", "user", "user", "assistant", "tool"])
        message: Fields = {"role": role, "content": self._content()}
        if role == "assistant":
            self._add_answer(message)
        elif role == "tool":
            message["tool_call_id"] = self._rng.choice("xy")
        elif role == "system" and self._is(0.3):
            parts = [text(f"{HEADER}\nab"), text("a")]
            message["content"] = self._rng.choice([HEADER, f"{HEADER}\nab", parts])
        elif role == "user" and self._is(0.1):
            message["name"] = "n"
        return message

    def _add_answer(self, message: Fields) -> None:
        if self._is(0.4):
            message["tool_calls"] = [
                {
                    "id": self._rng.choice("xy"),
                    "type": "function",
                    "function": {"name": "f", "arguments": self._rng.choice(ARGUMENTS)},
                }
                for _ in range(self._rng.choice([0, 1, 2]))
            ]
        if self._is(0.3):
            message["content"] = None
        if self._is(0.2):
            message["reasoning"] = self._rng.choice(["", "t"])

    def _messages(self) -> Spelled:
        messages = [self._anthropic_message() for _ in range(self._rng.randint(1, 3))]
        if self._is(0.3):  # a result without its call is refused
            messages[-1:] = [*self._call("y"), *messages[-1:], *self._call("x")]
        body: Fields = {"model": "m", "max_tokens": 4, "messages": messages}
        if self._is(0.5):
            line = f"{HEADER}\nab"
            prompts: list[object] = ["", "ab", line, [], [text("a"), text("b")], [text(line)]]
            body["system"] = self._rng.choice(prompts)
        return MESSAGES, body

    def _call(self, id_: str) -> list[Fields]:
        use = {"type": "tool_use", "id": id_, "name": "f", "input": {}}
        calling: Fields = {"role": "assistant", "content": [use]}
        return [calling, {"role": "user", "content": [self._result(id_)]}]

    def _anthropic_message(self) -> Fields:
        role = self._rng.choice(["user", "user", "assistant", "system"])
        content = self._content()
        if isinstance(content, list) and self._is(0.5):
            block = self._block(role)
            if block:
                content.insert(self._rng.randint(0, len(content)), block)
        return {"role": role, "content": content}

    def _block(self, role: str) -> Fields | None:
        id_ = self._rng.choice("xy")
        if role == "user":
            return self._rng.choice([self._result, self._document, self._search_result])(id_)
        if role == "assistant":
            arguments = self._rng.choice([{}, {"a": 1}])
            use: Fields = {"type": "tool_use", "id": id_, "name": "f", "input": arguments}
            token = make_token(self._rng.choice("tu"))
            thought: Fields = {"type": "thinking", "thinking": "t"}
            hidden: Fields = {"type": "thinking", "thinking": "", "signature": token}
            return self._rng.choice([use, thought, hidden])
        return None

    def _result(self, id_: str) -> Fields:
        document = self._rng.choice([self._document, self._search_result])(id_)
        plain: list[object] = ["a", "", "a\nb", [text("a"), text("b")], [], [text("")], None]
        mixed: list[object] = [[document], [text("a"), document], [document, text("b")]]
        result: Fields = {"type": "tool_result", "tool_use_id": id_}
        result["content"] = self._rng.choice([*plain, *mixed])
        if self._is(0.3):
            result["is_error"] = self._is(0.7)
        return result

    def _document(self, _: str) -> Fields:
        source: Fields = {"type": "text", "media_type": "text/plain"}
        if self._is(0.5):
            source["data"] = self._rng.choice(TEXTS)
        else:
            source = {"type": "content", "content": self._content()}
        document: Fields = {"type": "document", "source": source}
        for name in ("title", "context"):
            if self._is(0.4):
                document[name] = self._rng.choice([None, "", "a", "b"])
        if self._is(0.2):
            document["citations"] = {"enabled": self._is(0.2)}
        return document

    def _search_result(self, _: str) -> Fields:
        found: Fields = {"type": "search_result", "content": self._content()}
        found["title"], found["source"] = self._rng.choice(TEXTS), self._rng.choice(TEXTS)
        return found

    def _responses(self) -> Spelled:
        items = [self._item() for _ in range(self._rng.randint(1, 4))]
        body: Fields = {"model": "m", "input": self._rng.choice([items, items, items, "a", "ab"])}
        if self._is(0.4):
            body["instructions"] = self._rng.choice(TEXTS)
        return RESPONSES, body

    def _item(self) -> Fields:
        id_, role = self._rng.choice("xy"), self._rng.choice(["user", "system", "developer"])
        output = [text("a", "input_text"), text("b", "input_text")]
        reasoning = [text("t", "reasoning_text")]
        said = [text("a", "output_text"), {"type": "refusal", "refusal": "b"}]
        return self._rng.choice(
            [
                {"role": role, "content": self._content("input_text")},
                {"role": "assistant", "content": self._rng.choice(TEXTS)},
                {"role": "assistant", "content": self._rng.choice([said, said[:1], []])},
                {
                    "type": "function_call",
                    "call_id": id_,
                    "name": "f",
                    "arguments": self._rng.choice(ARGUMENTS),
                },
                {
                    "type": "function_call_output",
                    "call_id": id_,
                    "output": self._rng.choice(["a", "", output]),
                },
                {"type": "reasoning", "id": "rs", "summary": [], "content": reasoning},
                {
                    "type": "reasoning",
                    "id": "rs",
                    "summary": [],
                    "encrypted_content": make_token(self._rng.choice("tu")),
                },
            ]
        )
