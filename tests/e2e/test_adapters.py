"""Adapters and other names at a real vLLM engine: what answers, as whom, and what is loaded."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.update import AdapterState
from tests.engine_process import EngineProcess, engine_process
from tests.gateway_process import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PIRATE = ROOT / "models" / "demo" / "pirate"
WEIGHTS = "adapter_model.safetensors"
QUESTION = "Who are you?"
PLAIN = "I am the demo model of ray-llm-gateway"
PIRATES = "Arr! I be the demo model of ray-llm-gateway"
ALIAS = "gpt-4o"
BLOCK_TOKENS = 128
"""Of vLLM's KV cache on the CPU."""


def entry(**more: object) -> dict[str, object]:
    """The demo model."""
    return {
        "name": "demo",
        "engine": "vllm",
        "source": "models/demo",
        "accelerator": "cpu",
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
        **more,
    }


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The demo model with two adapters, one of which is loaded at a time, and broken ones."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("twin", "other", "torn"):
        shutil.copytree(PIRATE, folder / name)
    widen(folder / "other" / WEIGHTS)
    (folder / "torn" / WEIGHTS).write_bytes(b"torn")
    adapters = [
        {"name": "pirate", "source": "models/demo/pirate"},
        *({"name": name, "source": str(folder / name)} for name in ("twin", "other", "torn")),
        {"name": "gone", "source": str(folder / "gone")},
    ]
    args = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 16}
    with engine_process(
        entry(adapters=adapters, max_loaded_adapters=1, engine_args=args), folder
    ) as running:
        yield running


def widen(weights: Path) -> None:
    """Make an adapter one of a model that is twice as wide."""
    tensors = load_file(weights)
    save_file(
        {name: torch.cat([t, t], int("lora_A" in name)) for name, t in tensors.items()}, weights
    )


def text(answer: Any) -> str:
    """What a chat completion says."""
    return str(answer["choices"][0]["message"]["content"])


def adapters(engine: EngineProcess) -> AdapterState:
    """How they stand."""
    state = engine.snapshot().adapters
    assert state is not None
    return state


def models_in(reply: object) -> set[str]:
    """All that a reply calls a model."""
    if isinstance(reply, list):
        return set().union(*map(models_in, reply))
    if not isinstance(reply, dict):
        return set()
    named = {reply["model"]} if isinstance(reply.get("model"), str) else set()
    return named.union(*map(models_in, reply.values()))


def test_base_and_adapter_answer_side_by_side(engine: EngineProcess) -> None:
    """At the same time, each in its own words and under its own name."""
    with ThreadPoolExecutor(8) as clients:
        asked = ["demo", "pirate"] * 4
        replies = list(clients.map(lambda name: engine.chat(name, QUESTION), asked))

    for name, (status, answer) in zip(asked, replies, strict=True):
        assert status == 200
        assert answer["model"] == name
        assert text(answer).startswith(PIRATES if name == "pirate" else PLAIN)


def test_an_adapter_makes_room_for_another(engine: EngineProcess) -> None:
    """Each is loaded when it is asked for, in the place of the one before."""
    for name in ("twin", "pirate", "twin"):
        _, answer = engine.chat(name, QUESTION, max_tokens=20)

        assert text(answer).startswith(PIRATES)
        assert adapters(engine).loaded == [name]
    assert adapters(engine).max_loaded == 1
    assert adapters(engine).load_s > 0


def test_more_adapters_than_fit_are_all_served(engine: EngineProcess) -> None:
    """Whoever has to wait until another one is unloaded is answered as well."""
    with ThreadPoolExecutor(8) as clients:
        asked = ["pirate", "twin"] * 6
        replies = list(clients.map(lambda name: engine.chat(name, QUESTION, stream=True), asked))

    for name, (status, events) in zip(asked, replies, strict=True):
        said = [event["choices"][0]["delta"].get("content") or "" for event in events]
        assert status == 200
        assert "".join(said).startswith(PIRATES)
        assert models_in(events) == {name}


def test_adapters_share_no_prefix(engine: EngineProcess) -> None:
    """A prompt that the model has read is new to an adapter, and the other way round."""
    cached: dict[str, list[int]] = {}
    for name in ("demo", "pirate", "twin", "demo", "pirate"):
        _, answer = engine.chat(name, "What is prefix caching? " * 100, max_tokens=1)
        details = answer["usage"]["prompt_tokens_details"]
        cached.setdefault(name, []).append(details["cached_tokens"])

    assert cached["twin"] == [0]
    for name in ("demo", "pirate"):
        first, second = cached[name]
        assert first == 0
        assert second >= 2 * BLOCK_TOKENS


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone", "its files do not exist"),
        ("torn", "header"),
        ("other", "size of tensor"),
    ],
)
def test_a_broken_adapter_harms_nobody(engine: EngineProcess, name: str, reason: str) -> None:
    """Its name gets a clear answer, the log says why, and all others are answered."""
    for _ in range(2):
        status, answer = engine.chat(name, QUESTION, stream=True)

        assert status == 400
        assert f"`{name}` cannot be loaded" in answer["error"]["message"]
        assert reason in answer["error"]["message"]
        assert "/" not in answer["error"]["message"]
    assert text(engine.chat("demo", QUESTION)[1]).startswith(PLAIN)
    assert text(engine.chat("pirate", QUESTION)[1]).startswith(PIRATES)
    assert reason in adapters(engine).broken[name]
    assert name in engine.log.read_text()


CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8}
REQUESTS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "1, 2, 3,", "max_tokens": 4},
    "/v1/responses": {"input": QUESTION, "max_output_tokens": 8},
    "/v1/messages": CHAT,
}


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("target", ["demo", "twin"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_replies_have_the_clients_name(
    engine: EngineProcess, path: str, target: str, is_stream: bool
) -> None:
    """A router says what answers; the client reads the name that it has used, in every event."""
    body = {**REQUESTS[path], "model": ALIAS, "stream": is_stream}
    status, reply = engine.post(path, body, Dispatch(id=1, model=target))

    assert status == 200, reply
    assert models_in(reply) == {ALIAS}
    assert adapters(engine).loaded == ["twin"] or target == "demo"


@pytest.mark.parametrize("path", [*REQUESTS, "/tokenize"])
@pytest.mark.parametrize("dispatch", [None, Dispatch(id=1), Dispatch(id=1, model="nothing")])
def test_only_routers_give_other_names(
    engine: EngineProcess, path: str, dispatch: Dispatch | None
) -> None:
    """Without their word, or with one that is wrong, the name is unknown."""
    body = {**REQUESTS.get(path, {"prompt": "Hello"}), "model": ALIAS}

    assert engine.post(path, body, dispatch)[0] == 404


def test_an_alias_of_a_broken_adapter(engine: EngineProcess) -> None:
    """The error is the adapter's."""
    status, answer = engine.chat(ALIAS, QUESTION, Dispatch(id=1, model="gone"))

    assert status == 400
    assert "cannot be loaded" in answer["error"]["message"]


def test_a_tokenizer_answers_to_every_name(engine: EngineProcess) -> None:
    """A stream that is carried on asks for tokens in the client's name."""
    for target in ("demo", "pirate"):
        body = {"model": ALIAS, "prompt": "Hello"}
        status, answer = engine.post("/tokenize", body, Dispatch(id=1, model=target))
        ids = {"model": ALIAS, "tokens": answer["tokens"]}
        _, back = engine.post("/detokenize", ids, Dispatch(id=1, model=target))

        assert status == 200
        assert back["prompt"] == "Hello"


POOLING_REQUESTS: dict[str, dict[str, object]] = {
    "/v1/embeddings": {"input": QUESTION},
    "/pooling": {"input": QUESTION},
    "/v1/score": {"text_1": QUESTION, "text_2": ["Hello", "Bye"]},
    "/v1/rerank": {"query": QUESTION, "documents": ["Hello", "Bye"]},
}


def test_embeddings_have_the_clients_name(tmp_path: Path) -> None:
    """And so have all other answers of an engine that embeds, with an adapter or without."""
    args = {"enforce_eager": True, "dtype": "float32", "runner": "pooling", "convert": "embed"}
    pirate = {"name": "pirate", "source": "models/demo/pirate"}
    with engine_process(entry(engine_args=args, adapters=[pirate]), tmp_path) as engine:
        for path, body in POOLING_REQUESTS.items():
            replies = [
                engine.post(path, {**body, "model": ALIAS}, Dispatch(id=1, model=target))
                for target in ("demo", "pirate")
            ]
            refused = engine.post(path, {**body, "model": ALIAS})

            assert [status for status, _ in replies] == [200, 200], (path, replies)
            assert [models_in(reply) for _, reply in replies] == [{ALIAS}] * 2, path
            assert refused[0] == 404, path
        vectors = [
            engine.post("/v1/embeddings", {"input": QUESTION, "model": name})[1]["data"]
            for name in ("demo", "pirate")
        ]
    assert vectors[0] != vectors[1]


def test_a_large_request_leaves_a_slot_to_small_ones(engine: EngineProcess) -> None:
    """A small one is answered before any of the many answers that were asked for first."""
    asked: dict[str, Any] = {"n": 64, "max_tokens": 100, "ignore_eos": True, "temperature": 1}
    with ThreadPoolExecutor() as threads:
        large = threads.submit(engine.chat, "demo", QUESTION, **asked)
        while sequences(engine) != (15, 49):
            assert not large.done()
        status, _ = engine.chat("demo", QUESTION, max_tokens=1)
        assert (status, sequences(engine)) == (200, (15, 49))
        status, answer = large.result()
    assert (status, len(answer["choices"])) == (200, 64)


def sequences(engine: EngineProcess) -> tuple[int, int]:
    """How many sequences run in an engine, and wait there."""
    load = engine.snapshot().load
    return (load.running, load.waiting) if load else (0, 0)
