"""A real vLLM engine keeps cached prompts in their scope, whatever API and salt are used."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.identity.cache_scope import SALTS, CacheSalts
from gateway.proxy_key import cluster_key
from gateway.telemetry.dispatch import Dispatch, Origin
from tests.e2e.engine_ledger import ledger_of, sums_of
from tests.engine_process import EngineProcess, engine_process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BLOCK_TOKENS = 128
"""Of vLLM's KV cache on the CPU."""
CLUSTER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the token of this cluster"}
ENTRY = {
    "name": "demo",
    "engine": "vllm",
    "source": "models/demo",
    "accelerator": "cpu",
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1", **CLUSTER},
    "adapters": [{"name": "pirate", "source": "models/demo/pirate"}],
    "engine_args": {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 16},
}
VICTIM, ATTACKER = "project:victim", "project:attacker"
ids = itertools.count(1)
Body = dict[str, object]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The demo model with an adapter, in a cluster with a token."""
    with engine_process(ENTRY, tmp_path_factory.mktemp("engine")) as running:
        yield running


def chat(text: str) -> Body:
    """A chat completion."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 2}


def adapter(text: str) -> Body:
    """The same by an adapter."""
    return {**chat(text), "model": "pirate"}


def messages(text: str) -> Body:
    """Anthropic's form of it."""
    return chat(text)


def responses(text: str) -> Body:
    """OpenAI's newer form of it."""
    return {"input": text, "max_output_tokens": 16}


def completion(text: str) -> Body:
    """A text completion."""
    return {"prompt": text, "max_tokens": 2}


def completions(text: str) -> Body:
    """Several prompts, the second of which no prefix keys stand for."""
    return {"prompt": ["short", text], "max_tokens": 2}


def token_ids(text: str) -> Body:
    """Token ids."""
    return {"prompt": [300 + ord(each) for each in text[:400]], "max_tokens": 2}


FORMS = {
    chat: "/v1/chat/completions",
    adapter: "/v1/chat/completions",
    messages: "/v1/messages",
    responses: "/v1/responses",
    completion: "/v1/completions",
    completions: "/v1/completions",
    token_ids: "/v1/completions",
}


def cached(engine: EngineProcess, path: str, body: Mapping[str, object], scope: str | None) -> int:
    """Tokens that a client of this scope is told were cached; None: nobody is authenticated."""
    origin = None if scope is None else Origin(project="p", cache_scope=scope)
    dispatch = Dispatch(id=next(ids), origin=origin)
    status, answer = engine.post(path, {"model": "demo", **body}, dispatch)
    assert status == 200, answer
    return cached_in(answer["usage"])


def cached_in(usage: Mapping[str, Any]) -> int:
    """Cached tokens in the usage of any API."""
    if "cache_read_input_tokens" in usage:
        return int(usage["cache_read_input_tokens"] or 0)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return int(details.get("cached_tokens") or 0)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_prompt_is_found_in_its_own_scope_only(engine: EngineProcess, form: Any) -> None:
    """Whatever salt another client sends, the victim's own and the engine's included."""
    path, prompt = FORMS[form], form(f"{form.__name__}: a plan that is nobody's business. " * 25)
    derived = CacheSalts(cluster_key(SALTS, CLUSTER)).salt(VICTIM)

    assert cached(engine, path, prompt, VICTIM) == 0
    assert cached(engine, path, prompt, VICTIM) >= BLOCK_TOKENS
    assert cached(engine, path, prompt, ATTACKER) == 0
    assert cached(engine, path, prompt, "key:victim/k") == 0
    for salt in (VICTIM, derived):
        salted = {**prompt, "cache_salt": salt}
        assert cached(engine, path, salted, f"{ATTACKER} {salt}") == 0
        assert cached(engine, path, salted, "") == 0
    assert cached(engine, path, prompt, VICTIM) >= BLOCK_TOKENS
    # It was the engine's salt: with the engine's access key, and nobody's name, it opens the cache.
    assert cached(engine, path, {**prompt, "cache_salt": derived}, None) >= BLOCK_TOKENS


def test_a_client_s_own_salt_divides_its_scope(engine: EngineProcess) -> None:
    """And is the same client's the next time."""
    prompt = chat("A scope is divided by the client's salt. " * 25)
    path, mine = FORMS[chat], {**prompt, "cache_salt": "mine"}

    assert [cached(engine, path, each, VICTIM) for each in (prompt, mine)] == [0, 0]
    assert cached(engine, path, mine, VICTIM) >= BLOCK_TOKENS
    assert cached(engine, path, mine, ATTACKER) == 0


def test_each_of_several_answers_is_in_the_scope(engine: EngineProcess) -> None:
    """vLLM makes a request of its own for each."""
    prompt = chat("Two answers to the same question. " * 25)
    cached(engine, FORMS[chat], {**prompt, "n": 2, "temperature": 1.0}, VICTIM)

    assert cached(engine, FORMS[chat], prompt, ATTACKER) == 0
    assert cached(engine, FORMS[chat], prompt, VICTIM) >= BLOCK_TOKENS


def test_sequences_that_had_to_wait_are_in_their_own_scope(engine: EngineProcess) -> None:
    """Those of a large request start when others end, while other clients' requests come and go."""
    plans = [f"Plan {number}. " + f"The plan {number} is secret. " * 25 for number in range(40)]
    body = {"prompt": plans, "max_tokens": 8, "ignore_eos": True}
    with ThreadPoolExecutor(5) as clients:
        waiting = clients.submit(cached, engine, "/v1/completions", body, VICTIM)
        spies = [
            clients.submit(cached, engine, FORMS[chat], chat(f"Hello {number}"), ATTACKER)
            for number in range(40)
        ]
        waiting.result()
        assert [spy.result() for spy in spies] == [0] * len(spies)

    found = [cached(engine, "/v1/completions", completion(plan), ATTACKER) for plan in plans]
    assert found == [0] * len(plans)
    assert cached(engine, "/v1/completions", completion(plans[-1]), VICTIM) >= BLOCK_TOKENS


def test_what_is_shared_by_all_is_shared_with_an_open_gateway(engine: EngineProcess) -> None:
    """Projects whose `cache_scope` is `all` have no salt, nor has a request of nobody."""
    prompt = chat("A system prompt that all may share. " * 25)

    assert cached(engine, FORMS[chat], prompt, "") == 0
    assert cached(engine, FORMS[chat], prompt, None) >= BLOCK_TOKENS
    assert cached(engine, FORMS[chat], prompt, VICTIM) == 0


def test_a_right_guess_looks_like_a_wrong_one(engine: EngineProcess) -> None:
    """The attack: a confidential sentence is guessed, and what was cached tells whether it is true.

    On an open gateway it does; across scopes it does not, in a stream's usage either.
    """
    start = "Minutes of the board, strictly confidential. " * 20
    true, wrong = ("We shall buy them for 9 dollars. " * 20, "We shall sell them all in May. " * 20)

    def guessed(scope: str | None, sentence: str) -> int:
        body = {**chat(start + sentence), "stream": True, "stream_options": {"include_usage": True}}
        origin = None if scope is None else Origin(project="p", cache_scope=scope)
        dispatch = Dispatch(id=next(ids), origin=origin)
        _, events = engine.post(FORMS[chat], {"model": "demo", **body}, dispatch)
        return cached_in(events[-1]["usage"])

    cached(engine, FORMS[chat], chat(start + true), None)
    assert guessed(None, true) - guessed(None, wrong) >= BLOCK_TOKENS
    cached(engine, FORMS[chat], chat(start + true), VICTIM)
    assert guessed("project:spy", true) == 0
    assert guessed("project:other-spy", wrong) == 0
    assert guessed(VICTIM, true) >= BLOCK_TOKENS


async def test_a_project_is_charged_for_what_the_engine_counted(
    engine: EngineProcess, tmp_path: Path
) -> None:
    """Its usage and its cost, whatever API it uses, cached tokens and several answers included."""
    origin = Origin(project="proj_charged", key="key_1", cache_scope="project:proj_charged")
    text = "What this costs is what the engine has counted. " * 25
    bodies: list[tuple[str, Body]] = [
        (FORMS[chat], chat(text)),
        (FORMS[chat], {**chat(text), "n": 2, "temperature": 1.0}),
        (FORMS[chat], {**chat(text), "stream": True, "stream_options": {"include_usage": True}}),
        (FORMS[completions], completions(text)),
        (FORMS[adapter], adapter(text)),
    ]
    prompt = hit = answer = 0
    for path, body in bodies:
        dispatch = Dispatch(id=next(ids), origin=origin)
        status, told = await asyncio.to_thread(
            engine.post, path, {"model": "demo", **body}, dispatch
        )
        assert status == 200, told
        counted = (told[-1] if isinstance(told, list) else told)["usage"]
        prompt += counted["prompt_tokens"]
        hit += cached_in(counted)
        answer += counted["completion_tokens"]
    assert hit >= BLOCK_TOKENS

    price = {"input": 3, "cached_input": "0.3", "output": 15}
    async with ledger_of(engine, "demo", tmp_path, price) as keeper:
        found = await sums_of(keeper, "proj_charged", len(bodies))

    assert found[:3] == (prompt, hit, answer)
    assert found[3] == 3000 * (prompt - hit) + 300 * hit + 15_000 * answer
