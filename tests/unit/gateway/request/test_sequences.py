"""Sequences of a request: counted as engines make them, without parsing its prompts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.request.routes import CHAT, COMPLETIONS, parse_head

EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"


def sequences(path: str, fields: str) -> int:
    """Sequences of a request with these fields."""
    return parse_head(path, b'{"model":"m",%b}' % fields.encode(), b"").sequences


@pytest.mark.parametrize(
    ("value", "n"),
    [
        *(("3", 3), ("2000", 2000), ("16384", 16384), ("2.0", 2), ("1e3", 1000)),
        *(
            ('"2000"', 2000),
            ('" +2_000.0 "', 2000),
            ('"002"', 2),
            (f'"{"0" * 4400}128"', 128),
            ("true", 1),
        ),
        # engines reject these
        *(("null", 1), ("0", 1), ("-3", 1), ("1.5", 1), ('"1e3"', 1), ("[5]", 1), ('"five"', 1)),
        *(("1e999999", 1), ("9" * 5000, 1), ('"٣"', 1)),
    ],
)
def test_answers_are_read_as_engines_read_them(value: str, n: int) -> None:
    """Engines convert texts and fractions of zero to numbers."""
    assert sequences(CHAT, f'"messages":[],"n":{value}') == n


def test_only_what_the_engine_reads_makes_sequences() -> None:
    """Embeddings and other chats have one answer, and `best_of` is a thing of the past."""
    assert sequences("/v1/messages", '"messages":[],"n":5') == 1
    assert sequences("/v1/responses", '"input":"a","n":5') == 1
    assert sequences(EMBEDDINGS, '"input":"a","n":5') == 1
    assert sequences(COMPLETIONS, '"prompt":"a","best_of":5') == 1
    assert sequences("/tokenize", '"prompt":"a","n":5') == 1


@pytest.mark.parametrize(
    ("path", "fields", "count"),
    [
        (COMPLETIONS, '"prompt":"one, [\\"two\\"]"', 1),
        (COMPLETIONS, '"prompt":["a","b"]', 2),
        (COMPLETIONS, '"prompt": [ "a\\"","\\\\", "[,\\\\\\"" ]', 3),
        (COMPLETIONS, '"prompt":["a","b"],"n":3', 6),
        (COMPLETIONS, '"prompt":[1,2,3]', 1),
        (COMPLETIONS, '"prompt":[[1,2],[3,4], [5]]', 3),
        (COMPLETIONS, '"prompt":[]', 1),
        (COMPLETIONS, '"prompt":"","prompt_embeds":["x","y"],"n":2', 4),
        (EMBEDDINGS, '"input":["a","b"]', 2),
        (EMBEDDINGS, '"input":' + json.dumps(["text"] * 1500), 1500),
        ("/pooling", '"input":[[1],[2]]', 2),
        ("/classify", '"input":["a","b"]', 2),
        (EMBEDDINGS, '"input":[{"role":"user"},{"role":"user"}]', 1),
        (CHAT, '"messages":["a","b"]', 1),
        (COMPLETIONS, '"messages":[[{"role":"user"}], [{"role":"user"},{"role":"user"}]]', 2),
        (RERANK, '"query":"q","documents":["a","b","c"]', 3),
        (RERANK, '"query":"q","documents":[{"content":[]},{"content":[{}]}]', 2),
        (RERANK, '"query":"q","documents":["a", {"content":["b","c"]},{"content":"d"}]', 3),
        (RERANK, '"query":"q","documents":["a,{b","c"]', 2),
        ("/score", '"text_1":"q","text_2":["a","b"]', 2),
        ("/v1/score", '"data_1":["q","r"],"data_2":["a","b"]', 2),
        ("/score", '"queries":"q","items":["a","b","c"]', 3),
    ],
)
def test_each_prompt_has_sequences_of_its_own(path: str, fields: str, count: int) -> None:
    """Lists of texts, of lists of token ids, and of documents are several prompts."""
    assert sequences(path, fields) == count


@given(st.lists(st.text(), min_size=1))
def test_texts_are_counted_whatever_they_hold(texts: list[str]) -> None:
    """Quotes, brackets and backslashes in texts are no prompts."""
    for ascii_only in (True, False):
        encoded = json.dumps(texts, ensure_ascii=ascii_only)
        assert sequences(COMPLETIONS, f'"prompt":{encoded}') == len(texts)


def test_the_length_of_all_prompts_is_known() -> None:
    """Where there are several."""

    def size(fields: bytes) -> int:
        return parse_head(COMPLETIONS, b'{"model":"m",%b}' % fields, b"").prompts_bytes

    assert size(b'"prompt":["a", "b"]') == 10
    assert size(b'"prompt":[[1],[2]]') == 9
    assert size(b'"prompt":"ab"') == 0
