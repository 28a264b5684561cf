"""Another engine's events, turned into the rest of a stream."""

import json
from functools import partial

import pytest

from gateway.resume.splice import ChoiceOverlap, Splice, StreamDiverged
from gateway.resume.stream_log import StreamLog
from gateway.resume.transcript import Transcript

DONE = b"data: [DONE]\n\n"


def event(delta: object = None, **more: object) -> bytes:
    """Build a chat chunk."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": None, **more}
    return data(id="new", created=2, model="n", choices=[choice])


def data(**chunk: object) -> bytes:
    """Build an event."""
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()


def transcript(*deltas: object, **more: object) -> Transcript:
    """Build the transcript of these deltas."""
    stream_log = StreamLog()
    stream_log.append(event({"role": "assistant", "content": ""}).replace(b"new", b"old"))
    for delta in deltas:
        stream_log.append(event(delta, **more))
    return stream_log.transcript


def old(events: bytes) -> bytes:
    """Give events the identity of the old stream."""
    return events.replace(b'"new"', b'"old"')


SENT = {"content": "One two"}
CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
OTHER_CALL = CALL | {"id": "b", "function": {"name": "g", "arguments": "{"}}


@pytest.mark.parametrize(
    ("sent", "incoming"),
    [
        ([SENT], [event({"content": "One too"})]),
        ([SENT], [event({"content": "one"})]),
        ([SENT], [event({"content": "One"}), event(finish_reason="stop")]),
        ([SENT], [event({"reasoning": "Hm"})]),
        ([SENT], [event({"content": "One"}), event({"tool_calls": [CALL]})]),
        ([{"reasoning": "Hm"}], [event({"content": "One"})]),
        ([{"tool_calls": [CALL]}], [event({"tool_calls": [OTHER_CALL]})]),
        ([{"tool_calls": [CALL]}], [event(finish_reason="tool_calls")]),
        ([SENT], [b"data: {\n\n"]),
        ([SENT], [data(choices=7)]),
    ],
)
def test_an_answer_that_differs_is_rejected(sent: list[object], incoming: list[bytes]) -> None:
    """Less text than was sent, or other text, cannot be the same answer."""
    splice = Splice(transcript(*sent))
    with pytest.raises(StreamDiverged):
        splice.feed(b"".join(incoming))


def test_text_after_the_finish_is_rejected() -> None:
    """If the finish was sent, more text means another answer."""
    splice = Splice(transcript(SENT, finish_reason="stop"))
    assert splice.feed(event({"content": "One two"}, finish_reason="length")) == b""
    with pytest.raises(StreamDiverged, match="more"):
        splice.feed(event({"content": "!"}))


def test_reasoning_after_a_text_is_rejected() -> None:
    """The engine mistook the end of the prompt for the start of reasoning."""
    splice = Splice(transcript(SENT), partial(ChoiceOverlap.tail, text="", is_lenient=False))
    with pytest.raises(StreamDiverged, match="reasoning"):
        splice.feed(event({"reasoning": "three"}))


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_both_field_names_of_reasoning_are_one_text(name: str) -> None:
    """Two releases of an engine may name it differently."""
    splice = Splice(transcript({"reasoning": "Hm, "}))
    assert splice.feed(event({name: "Hm, well"})) == old(event({name: "well"}))


def test_a_tool_call_is_started_once() -> None:
    """The client keeps the id it has, and gets nothing of the call twice."""
    splice = Splice(transcript({"tool_calls": [CALL]}))
    again = CALL | {"id": "x", "function": {"name": "f", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ": 1}"}}
    new_call = OTHER_CALL | {"index": 1}
    incoming = [event({"tool_calls": [call]}) for call in (again, more, new_call)]
    rest = {"index": 0, "function": {"arguments": '"a"'}}
    expected = [event({"tool_calls": [call]}) for call in (rest, more, new_call)]
    assert splice.feed(b"".join(incoming)) == old(b"".join(expected))


def test_the_input_of_a_custom_tool_is_not_repeated() -> None:
    """It is joined as the arguments of a function are."""
    call = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "One "}}
    splice = Splice(transcript({"tool_calls": [call]}))
    again = call | {"id": "x", "custom": {"name": "f", "input": "One two"}}
    rest = {"index": 0, "custom": {"input": "two"}}
    assert splice.feed(event({"tool_calls": [again]})) == old(event({"tool_calls": [rest]}))


@pytest.mark.parametrize(
    ("sent", "incoming", "new"),
    [
        ("\n", "\n", " bar"),
        ("\n", "\n\nfoo", "\nfoo bar"),
        ("\n", "foo", "foo bar"),
        ("\n ", "\nfoo", "foo bar"),
        (" ", "", "bar"),
    ],
)
def test_repeated_white_space_of_a_sampled_answer_is_dropped(
    sent: str, incoming: str, new: str
) -> None:
    """The new text may differ, and no white space is lost."""
    make_overlap = partial(ChoiceOverlap.tail, text=sent, is_lenient=True)
    splice = Splice(transcript({"content": f"One{sent}"}), make_overlap)
    rest = splice.feed(event({"content": incoming})) + splice.feed(event({"content": " bar"}))
    pieces = [json.loads(part)["choices"][0] for part in rest.split(b"data: ") if part]
    assert "".join(piece["delta"]["content"] for piece in pieces) == new


def test_the_role_is_sent_once() -> None:
    """This holds for an engine that sends it with text, too."""
    splice = Splice(transcript(SENT))
    incoming = event({"role": "assistant", "content": "One two!"})
    assert splice.feed(incoming) == old(event({"content": "!"}))


def test_token_lists_continue_where_they_ended() -> None:
    """Token ids and log probabilities start with the first that the client does not have."""
    sent = {"token_ids": [1, 2], "logprobs": {"content": [{"token": "a"}], "refusal": None}}
    splice = Splice(transcript({"content": "ab"}, **sent))
    entries = [{"token": "a"}, {"token": "b"}]
    incoming = {"token_ids": [1, 2, 3], "logprobs": {"content": entries, "refusal": None}}
    left = {"token_ids": [3], "logprobs": {"content": entries[1:], "refusal": None}}
    expected = old(event({"content": "c"}, **left))
    assert splice.feed(event({"content": "abc"}, **incoming)) == expected


def test_parallel_lists_of_a_text_completion_continue_together() -> None:
    """Its log probabilities are parallel lists."""
    lists = {"tokens": ["a", "b"], "top_logprobs": ["c", "d"]}
    stream_log = StreamLog()
    sent = {"index": 0, "text": "a", "logprobs": {name: v[:1] for name, v in lists.items()}}
    stream_log.append(data(id="old", created=2, model="n", choices=[sent]))
    splice = Splice(stream_log.transcript)
    incoming = {"index": 0, "text": "ab", "logprobs": lists}
    left = {"index": 0, "text": "b", "logprobs": {name: v[1:] for name, v in lists.items()}}
    expected = data(id="old", created=2, model="n", choices=[left])
    assert splice.feed(data(id="new", created=1, model="o", choices=[incoming])) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15},
        ),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8, "x": 1}},
            {
                "prompt_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 6, "x": 1},
                "completion_tokens": 3,
                "total_tokens": 9,
            },
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "x": None},
            {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10, "x": None},
        ),
    ],
)
def test_kept_tokens_count_as_tokens_of_the_answer(usage: object, expected: object) -> None:
    """The other engine counts them as prompt, but the first one generated them."""
    splice = Splice(
        transcript(SENT), partial(ChoiceOverlap.tail, text="", is_lenient=False), kept_tokens=3
    )
    for choices in ([{"index": 0, "delta": {"content": "x"}}], []):
        incoming = data(id="new", choices=choices, usage=usage)
        chunk = json.loads(splice.feed(incoming).removeprefix(b"data: "))
        assert chunk["usage"] == expected


def test_a_stream_has_one_finish_one_usage_and_one_end() -> None:
    """Repeated ones are dropped."""
    splice = Splice(transcript(SENT))
    finish = event({"content": "One two"}, finish_reason="stop")
    usage = data(choices=[], usage={"prompt_tokens": 1})
    passed = splice.feed(
        finish + event(finish_reason="length") + usage + usage + DONE + usage + DONE
    )
    choices = [json.loads(part)["choices"] for part in passed.split(b"data: ")[1:-1]]
    assert [choice[0]["finish_reason"] for choice in choices if choice] == ["stop"]
    assert choices.count([]) == 1
    assert passed.endswith(DONE)
    assert passed.count(DONE) == 1


def test_unknown_events_and_fields_are_forwarded() -> None:
    """Comments, errors and unknown fields reach the client unchanged."""
    splice = Splice(transcript(SENT))
    assert splice.feed(b": alive\n\n") == b": alive\n\n"
    error = data(error={"message": "no", "code": 400})
    assert splice.feed(error) == error
    incoming = data(id="new", created=9, model="x", choices=[_piece("One two!")], odd={"a": [1]})
    expected = data(id="old", created=2, model="n", choices=[_piece("!")], odd={"a": [1]})
    assert splice.feed(incoming) == expected


def _piece(text: str) -> object:
    return {"index": 0, "delta": {"content": text}, "odd": 1}
