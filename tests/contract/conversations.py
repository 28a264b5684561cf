"""Random conversations, each of which can be said in three APIs and in many spellings."""

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

WORDS = ["alpha", "beta,", 'delta: "quoted"', "épsilon\n\tzeta", "{x}", "\\", "/", "世界", ""]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"

Fields = dict[str, object]
Spelled = tuple[str, Fields]


@dataclass(frozen=True)
class Passage:
    """A document or a search result, which is read as texts."""

    kind: str
    texts: Sequence[str]
    title: str | None = None
    context: str | None = None

    @property
    def rendered(self) -> list[str]:
        """The texts that a model sees."""
        if self.kind == "search_result":
            return [f"{self.title}\n{self.context}\n", *self.texts]
        return [*(f"{head}\n" for head in (self.title, self.context) if head), *self.texts]


Part = str | Passage


def texts_of(parts: Sequence[Part]) -> list[str]:
    """The texts of a message."""
    return [text for part in parts for text in _rendered(part)]


def _rendered(part: Part) -> Sequence[str]:
    return [part] if isinstance(part, str) else part.rendered


@dataclass(frozen=True)
class Turn:
    """One message: who says it, and what."""

    role: str
    parts: Sequence[Part] = ()
    reasoning: str | None = None
    call: tuple[str, str, Fields] | None = None
    """Id, name and arguments of a call."""
    call_id: str = ""


@dataclass(frozen=True)
class Conversation:
    """A conversation, whatever API it is sent to."""

    system: str | None = None
    tools: Sequence[Fields] = ()
    turns: Sequence[Turn] = field(default_factory=list)


def _file(text: str) -> Fields:
    data = base64.b64encode(text.encode()).decode()
    return {"type": "input_file", "file_data": f"data:text/plain;base64,{data}"}


class Speaker:
    """Makes conversations up, and says them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - no secrets

    def conversation(self) -> Conversation:
        """Return any conversation that ends with the user or a tool."""
        turns: list[Turn] = []
        for _ in range(self._rng.randint(1, 4)):
            turns.append(Turn("user", [self._part() for _ in range(self._rng.choice([1, 1, 2]))]))
            if self._rng.random() < 0.15:
                turns.append(Turn("system", [self._text(10)]))
            turns += self._answer()
        if turns[-1].role == "assistant":
            turns.append(Turn("user", [self._text()]))
        system = self._text() if self._rng.random() < 0.6 else None
        return Conversation(system, self._tools(), turns)

    def changed(self, original: Conversation) -> Conversation:
        """Return a conversation that differs from this one somewhere."""
        kind = self._rng.random()
        if kind < 0.2:
            return replace(original, system=self._text())
        if kind < 0.4:
            return replace(original, tools=self._tools())
        turns = list(original.turns)
        at = self._rng.randrange(len(turns))
        turns[at] = replace(turns[at], parts=self._changed_parts(turns[at].parts))
        return replace(original, turns=turns)

    def _changed_parts(self, parts: Sequence[Part]) -> list[Part]:
        *first, last = parts or [""]
        if isinstance(last, str) or self._rng.random() < 0.2:
            return [*first, f"{self._text()}!"]
        changes: list[Fields] = [
            {"title": f"{last.title}!"},
            {"context": f"{last.context}!"},
            {"texts": [*last.texts, "!"]},
            {"texts": [f"{last.texts[0]}!", *last.texts[1:]]},
        ]
        return [*first, replace(last, **self._rng.choice(changes))]  # type: ignore[arg-type]

    def spellings(self, said: Conversation) -> list[Spelled]:
        """Return the same conversation for each API, spelled at random."""
        return [self._chat(said), self._messages(said), self._responses(said)]

    def encode(self, body: Fields) -> bytes:
        """Return a body as JSON, with or without escapes and spaces."""
        separators = self._rng.choice([None, (",", ":")])
        is_ascii = self._rng.random() < 0.5
        return json.dumps(body, ensure_ascii=is_ascii, separators=separators).encode()

    def _text(self, words: int = 0) -> str:
        count = words or self._rng.choice([3, 20, 120])
        return " ".join(self._rng.choice(WORDS) for _ in range(count))

    def _part(self) -> Part:
        if self._rng.random() < 0.75:
            return self._text()
        texts = [self._text() for _ in range(self._rng.choice([1, 1, 2]))]
        if self._rng.random() < 0.5:
            return Passage("search_result", texts, self._text(3), "https://a.example/é")
        title = self._rng.choice([None, self._text(3)])
        return Passage("document", texts, title, self._rng.choice([None, self._text(3)]))

    def _tools(self) -> list[Fields]:
        if self._rng.random() < 0.5:
            return []
        return [
            {
                "name": name,
                "description": self._rng.choice([None, self._text(30)]),
                "parameters": {
                    "type": "object",
                    "properties": {self._rng.choice("abc"): {"type": "string"} for _ in range(3)},
                },
                "strict": self._rng.choice([None, None, True]),
            }
            for name in self._rng.sample("fgh", self._rng.randint(1, 3))
        ]

    def _answer(self) -> list[Turn]:
        kind = self._rng.random()
        if kind < 0.4:
            thought = self._text(5) if self._rng.random() < 0.3 else None
            return [Turn("assistant", [self._text()], thought)]
        if kind < 0.7:
            id_ = f"call_{self._rng.randint(0, 9)}"
            value = self._rng.choice([1, 1.5, "x y", None, [1, "é\n"]])
            arguments: Fields = {self._rng.choice("abc"): value}
            call = (id_, self._rng.choice("fgh"), arguments)
            parts = [self._text()] if self._rng.random() < 0.5 else []
            result = Turn("tool", [self._part()], call_id=id_)
            return [Turn("assistant", parts, call=call), result]
        return []

    def _content(self, parts: Sequence[Part], kind: str = "text") -> object:
        texts = texts_of(parts)
        if len(texts) == 1 and self._rng.random() < 0.5:
            return texts[0]
        return [{"type": kind, "text": text, **self._mark(kind)} for text in texts]

    def _with_files(self, content: object) -> object:
        """A content of the Responses API, some of whose texts are files."""
        if not isinstance(content, list):
            return content
        return [
            _file(part["text"]) if part["text"] and self._rng.random() < 0.3 else part
            for part in content
        ]

    def _blocks(self, parts: Sequence[Part]) -> object:
        """A content in Anthropic's blocks."""
        if all(isinstance(part, str) for part in parts):
            return self._content(parts)
        blocks: list[Fields] = []
        for part in parts:
            if isinstance(part, str):
                blocks.append({"type": "text", "text": part, **self._mark()})
            else:
                blocks.append(self._passage(part))
        return blocks

    def _passage(self, passage: Passage) -> Fields:
        is_one = len(passage.texts) == 1
        content: object = [{"type": "text", "text": text} for text in passage.texts]
        if is_one and self._rng.random() < 0.5:
            content = passage.texts[0]
        off: Fields = {"citations": {"enabled": False}} if self._rng.random() < 0.3 else {}
        if passage.kind == "search_result":
            fields: Fields = {"title": passage.title, "source": passage.context}
            return self._shuffled({"type": passage.kind, **fields, "content": content, **off})
        source: Fields = {"type": "content", "content": content}
        if is_one and self._rng.random() < 0.5:
            source = {"type": "text", "media_type": "text/plain", "data": passage.texts[0]}
        heads: Fields = {"title": passage.title, "context": passage.context}
        given = {name: head for name, head in heads.items() if head or self._rng.random() < 0.5}
        return self._shuffled(
            {"type": "document", "source": self._shuffled(source), **given, **off, **self._mark()}
        )

    def _mark(self, kind: str = "text") -> Fields:
        is_marked = kind == "text" and self._rng.random() < 0.2
        return {"cache_control": {"type": "ephemeral"}} if is_marked else {}

    def _shuffled(self, fields: Fields) -> Fields:
        items = list(fields.items())
        self._rng.shuffle(items)
        return dict(items)

    def _chat(self, said: Conversation) -> Spelled:
        messages: list[Fields] = []
        if said.system is not None:
            role = self._rng.choice(["system", "developer"])
            messages.append({"role": role, "content": self._content([said.system])})
        for turn in said.turns:
            said_ = self._content(turn.parts) or None
            if turn.role == "tool":
                said_ = "\n".join(texts_of(turn.parts))  # as vLLM joins results in all APIs
            message: Fields = {"role": turn.role, "content": said_}
            if turn.call:
                id_, name, arguments = turn.call
                function = {"name": name, "arguments": self.encode(arguments).decode()}
                message["tool_calls"] = [{"id": id_, "type": "function", "function": function}]
            if turn.reasoning:
                key = self._rng.choice(["reasoning", "reasoning_content"])
                message[key] = turn.reasoning
            if turn.call_id:
                message["tool_call_id"] = turn.call_id
            messages.append(message)
        body: Fields = {"model": "m", "messages": messages}
        if said.tools:
            body["tools"] = [
                {"type": "function", "function": self._shuffled(tool)} for tool in said.tools
            ]
        return CHAT, body

    def _messages(self, said: Conversation) -> Spelled:
        messages: list[Fields] = []
        for turn in said.turns:
            blocks: list[Fields] = []
            if turn.reasoning:
                blocks.append({"type": "thinking", "thinking": turn.reasoning, "signature": "s"})
            blocks += [{"type": "text", "text": text} for text in texts_of(turn.parts)]
            if turn.call:
                id_, name, arguments = turn.call
                blocks.append({"type": "tool_use", "id": id_, "name": name, "input": arguments})
            if turn.role == "tool":
                content = self._blocks(turn.parts)
                result = {"type": "tool_result", "tool_use_id": turn.call_id, "content": content}
                messages.append({"role": "user", "content": [result]})
            elif turn.role == "assistant":
                messages.append({"role": "assistant", "content": blocks})
            else:
                messages.append({"role": turn.role, "content": self._blocks(turn.parts)})
        body: Fields = {"model": "m", "max_tokens": 5, "messages": messages}
        if said.system is not None:
            header = {"type": "text", "text": f"x-anthropic-billing-header: {self._rng.random()};"}
            body["system"] = self._rng.choice(
                [said.system, [header, {"type": "text", "text": said.system, **self._mark()}]]
            )
        if said.tools:
            body["tools"] = [self._anthropic_tool(tool) for tool in said.tools]
        return MESSAGES, body

    def _anthropic_tool(self, tool: Fields) -> Fields:
        fields = {key: value for key, value in tool.items() if value is not None}
        fields["input_schema"] = fields.pop("parameters")
        return self._shuffled(fields | self._mark())

    def _responses(self, said: Conversation) -> Spelled:
        items: list[Fields] = []
        for turn in said.turns:
            if turn.role == "tool":
                output = "\n".join(texts_of(turn.parts))
                items.append(
                    {"type": "function_call_output", "call_id": turn.call_id, "output": output}
                )
                continue
            if turn.reasoning:
                content = [{"type": "reasoning_text", "text": turn.reasoning}]
                items.append({"type": "reasoning", "id": "rs", "summary": [], "content": content})
            if turn.role == "assistant":
                texts = texts_of(turn.parts)
                items += [{"role": "assistant", "content": text} for text in texts]
            else:
                said_ = self._with_files(self._content(turn.parts, "input_text"))
                items.append({"type": "message", "role": turn.role, "content": said_})
            if turn.call:
                id_, name, arguments = turn.call
                text = self.encode(arguments).decode()
                items.append(
                    {"type": "function_call", "call_id": id_, "name": name, "arguments": text}
                )
        body: Fields = {"model": "m", "input": items}
        if said.system is not None:
            body["instructions"] = said.system
        if said.tools:
            body["tools"] = [self._shuffled({"type": "function", **tool}) for tool in said.tools]
        return RESPONSES, body
