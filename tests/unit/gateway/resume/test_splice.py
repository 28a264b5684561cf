"""Another engine's events, made into the rest of a stream."""

import json
from functools import partial

import pytest

from gateway.resume.splice import Diverged, Overlaps, Splice
from gateway.resume.stream_log import StreamLog
from gateway.resume.transcript import Transcript

DONE = b"data: [DONE]\n\n"


def event(delta: object = None, **more: object) -> bytes:
    """A chunk of a chat."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": None, **more}
    return data(id="new", created=2, model="n", choices=[choice])


def data(**chunk: object) -> bytes:
    """An event."""
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()


def transcript(*deltas: object, **more: object) -> Transcript:
    """What a client has that was sent these."""
    stream_log = StreamLog()
    stream_log.add(event({"role": "assistant", "content": ""}).replace(b"new", b"old"))
    for delta in deltas:
        stream_log.add(event(delta, **more))
    return stream_log.transcript


def old(events: bytes) -> bytes:
    """The same events under the identity of the old stream."""
    return events.replace(b'"new"', b'"old"')


SENT = {"content": "One two"}
CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
OTHER_CALL = CALL | {"id": "b", "function": {"name": "g", "arguments": "{"}}


@pytest.mark.parametrize(
    ("sent", "come"),
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
def test_an_answer_that_differs_is_refused(sent: list[object], come: list[bytes]) -> None:
    """Less than what was sent, or something else, cannot be the same answer."""
    splice = Splice(transcript(*sent))
    with pytest.raises(Diverged):
        splice.feed(b"".join(come))


def test_nothing_follows_upon_a_finish() -> None:
    """If what was sent has its finish, more text is another answer."""
    splice = Splice(transcript(SENT, finish_reason="stop"))
    assert splice.feed(event({"content": "One two"}, finish_reason="length")) == b""
    with pytest.raises(Diverged, match="more"):
        splice.feed(event({"content": "!"}))


def test_reasoning_cannot_follow_upon_a_text() -> None:
    """An engine that takes the prompt's end for the start of a thought has lost the thread."""
    splice = Splice(transcript(SENT), partial(Overlaps.tail, text="", is_lenient=False))
    with pytest.raises(Diverged, match="reasoning"):
        splice.feed(event({"reasoning": "three"}))


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_both_names_of_reasoning_are_one_text(name: str) -> None:
    """Engines of two releases name it differently."""
    splice = Splice(transcript({"reasoning": "Hm, "}))
    assert splice.feed(event({name: "Hm, well"})) == old(event({name: "well"}))


def test_a_call_is_begun_once() -> None:
    """The id that the client has stays, and what it has of the call does not come again."""
    splice = Splice(transcript({"tool_calls": [CALL]}))
    again = CALL | {"id": "x", "function": {"name": "f", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ": 1}"}}
    new_call = OTHER_CALL | {"index": 1}
    come = [event({"tool_calls": [call]}) for call in (again, more, new_call)]
    rest = {"index": 0, "function": {"arguments": '"a"'}}
    expected = [event({"tool_calls": [call]}) for call in (rest, more, new_call)]
    assert splice.feed(b"".join(come)) == old(b"".join(expected))


@pytest.mark.parametrize(
    ("sent", "come", "new"),
    [
        ("\n", "\n", " bar"),
        ("\n", "\n\nfoo", "\nfoo bar"),
        ("\n", "foo", "foo bar"),
        ("\n ", "\nfoo", "foo bar"),
        (" ", "", "bar"),
    ],
)
def test_a_sampled_answer_may_go_on_in_another_way(sent: str, come: str, new: str) -> None:
    """White space that comes again is dropped, and none is missed."""
    overlaps = partial(Overlaps.tail, text=sent, is_lenient=True)
    splice = Splice(transcript({"content": f"One{sent}"}), overlaps)
    rest = splice.feed(event({"content": come})) + splice.feed(event({"content": " bar"}))
    pieces = [json.loads(part)["choices"][0] for part in rest.split(b"data: ") if part]
    assert "".join(piece["delta"]["content"] for piece in pieces) == new


def test_the_role_is_given_once() -> None:
    """Also by an engine that gives it together with text."""
    splice = Splice(transcript(SENT))
    come = event({"role": "assistant", "content": "One two!"})
    assert splice.feed(come) == old(event({"content": "!"}))


def test_lists_go_on_where_they_ended() -> None:
    """Token ids and probabilities are passed on from the first that the client does not have."""
    sent = {"token_ids": [1, 2], "logprobs": {"content": [{"token": "a"}], "refusal": None}}
    splice = Splice(transcript({"content": "ab"}, **sent))
    entries = [{"token": "a"}, {"token": "b"}]
    come = {"token_ids": [1, 2, 3], "logprobs": {"content": entries, "refusal": None}}
    left = {"token_ids": [3], "logprobs": {"content": entries[1:], "refusal": None}}
    expected = old(event({"content": "c"}, **left))
    assert splice.feed(event({"content": "abc"}, **come)) == expected


def test_lists_of_a_text_completion_go_on_together() -> None:
    """Its probabilities are lists side by side."""
    lists = {"tokens": ["a", "b"], "top_logprobs": ["c", "d"]}
    stream_log = StreamLog()
    sent = {"index": 0, "text": "a", "logprobs": {name: v[:1] for name, v in lists.items()}}
    stream_log.add(data(id="old", created=2, model="n", choices=[sent]))
    splice = Splice(stream_log.transcript)
    come = {"index": 0, "text": "ab", "logprobs": lists}
    left = {"index": 0, "text": "b", "logprobs": {name: v[1:] for name, v in lists.items()}}
    expected = data(id="old", created=2, model="n", choices=[left])
    assert splice.feed(data(id="new", created=1, model="o", choices=[come])) == expected


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
def test_kept_tokens_are_tokens_of_the_answer(usage: object, expected: object) -> None:
    """What the other engine counts as prompt was generated by the first."""
    splice = Splice(
        transcript(SENT), partial(Overlaps.tail, text="", is_lenient=False), kept_tokens=3
    )
    for choices in ([{"index": 0, "delta": {"content": "x"}}], []):
        come = data(id="new", choices=choices, usage=usage)
        chunk = json.loads(splice.feed(come).removeprefix(b"data: "))
        assert chunk["usage"] == expected


def test_a_stream_ends_once() -> None:
    """One finish, one usage, one end, whatever comes."""
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


def test_what_is_not_known_passes() -> None:
    """Comments, errors and fields that nobody knows go to the client as they are."""
    splice = Splice(transcript(SENT))
    assert splice.feed(b": alive\n\n") == b": alive\n\n"
    error = data(error={"message": "no", "code": 400})
    assert splice.feed(error) == error
    come = data(id="new", created=9, model="x", choices=[_piece("One two!")], odd={"a": [1]})
    expected = data(id="old", created=2, model="n", choices=[_piece("!")], odd={"a": [1]})
    assert splice.feed(come) == expected


def _piece(text: str) -> object:
    return {"index": 0, "delta": {"content": text}, "odd": 1}
