"""Faults under real vLLM engines: what breaks, and what clients see of it, which is nothing."""

import asyncio
import contextlib
import copy
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
import psutil
import pytest

from tests.e2e.twins import TWINS, deploy_twins, running, with_twins
from tests.gateway_process import Document, GatewayProcess, command_line, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),  # engines are started and replaced before a test begins
]

MODEL = TWINS
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
STORY = "Tell me a story."
AS_PROMPT = f"<|im_start|>user\n{STORY}<|im_end|>\n<|im_start|>assistant\n"
"""The chat of it, as the model's template writes it."""
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
REQUEST_TIMEOUT_S = 120.0
REPLACED_TIMEOUT_S = 300.0
MIDDLE = 8
"""Events of every stream of an engine after which it is killed: far from the last."""
MOST_EACH = 4
"""Streams of a kind: together no more than two engines run, so that none waits for another."""
SETTLED_S = 0.1
"""In which what an engine has said comes to its clients, once it says no more."""
FIRST_TURN_S, LAST_TURN_S = 0.01, 0.16
"""In which an engine makes few tokens of some hundreds, or none on a busy machine."""
MIDDLE_TIMEOUT_S = 60.0
"""For streams to come to their middle; each takes a step of the engine, or a few."""
ROUNDS = 5
"""Of streams, until an engine is killed at work on one of each kind."""
CUT_TOKENS = 2
"""By which the tokens of a word that was cut may differ from those of the whole one."""
ENDLESS = 8000
"""Tokens that take longer than any test."""
WHOLE = 4
"""Requests without streaming that are under way as well: some with each engine."""

T = TypeVar("T")
Asked = tuple[str, Document]
"""A path and a body."""


def chat(text: str, **more: object) -> Asked:
    """A conversation of one question."""
    messages = [{"role": "user", "content": text}]
    return CHAT, {"model": MODEL, "messages": messages, **more}


ALIKE: dict[str, Asked] = {
    "chat": chat(STORY, temperature=0),
    "limited": chat(STORY, temperature=0, max_tokens=350),
    "tools offered": chat(STORY, temperature=0, tools=[WEATHER]),
    "seeded": chat(STORY, temperature=0.7, seed=7),
    "completion": (
        TEXT,
        {"model": MODEL, "prompt": AS_PROMPT, "temperature": 0, "max_tokens": 600},
    ),
}
"""What has the same answer every time."""
SAMPLED = "sampled"
NOT_RESUMED = "not to be resumed"
KINDS = {**ALIKE, SAMPLED: chat(STORY, temperature=0.7), NOT_RESUMED: ALIKE["chat"]}


@dataclass(slots=True)
class Stream:
    """A stream on its way to its client."""

    kind: str
    request_id: str
    replica: str = ""
    """The one that it began on."""
    content: bytes = b""

    async def read(self, http: httpx.AsyncClient) -> None:
        """Ask, and read all of the answer."""
        path, body = KINDS[self.kind]
        # With another salt nothing of an earlier prompt is cached: load alone says where it goes.
        body = {
            **body,
            "cache_salt": self.request_id,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"x-request-id": self.request_id}
        if self.kind == NOT_RESUMED:
            headers["x-gateway-resume"] = "off"
        async with http.stream("POST", path, json=body, headers=headers) as response:
            self.replica = response.headers["x-gateway-replica"]
            async for chunk in response.aiter_raw():
                self.content += chunk

    @property
    def has_begun(self) -> bool:
        """Whether an engine has said something: the gateway alone sends comments."""
        return b"data: " in self.content

    @property
    def has_come_to_middle(self) -> bool:
        """Whether there is so much of it that an engine may be killed."""
        return self.content.count(b"\n\n") >= MIDDLE

    @property
    def events(self) -> list[Document]:
        """What has come, without the `[DONE]`."""
        blocks = [block for block in self.content.decode().split("\n\n") if block]
        return [json.loads(b.removeprefix("data: ")) for b in blocks if b.startswith("data: {")]

    @property
    def choices(self) -> list[Document]:
        """The choices of all events."""
        return [choice for event in self.events for choice in event.get("choices", ())]

    @property
    def text(self) -> str:
        """What the model has said."""
        pieces = (choice.get("text") or _delta(choice).get("content") for choice in self.choices)
        return "".join(piece or "" for piece in pieces)

    @property
    def usage(self) -> Document:
        """The tokens, as the last event counts them."""
        counts: Document = self.events[-1]["usage"]
        return {name: counts[f"{name}_tokens"] for name in ("prompt", "completion", "total")}

    @property
    def finish(self) -> str | None:
        """Why it has ended, in the model's word."""
        return next((c["finish_reason"] for c in self.choices if c["finish_reason"]), None)

    @property
    def is_done(self) -> bool:
        """Whether it has ended with `[DONE]`, and nothing after it."""
        return (self.content.count(b"data: [DONE]"), self.content[-14:]) == (1, b"data: [DONE]\n\n")

    def assert_is_one(self) -> None:
        """It looks as if nothing had happened."""
        events, choices = self.events, self.choices
        roles = [choice for choice in choices if "role" in _delta(choice)]
        assert self.is_done
        assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
        assert len(roles) == (KINDS[self.kind][0] == CHAT)
        assert sum(choice["finish_reason"] is not None for choice in choices) == 1
        assert [event for event in events if event.get("usage")] == [events[-1]]


@dataclass(frozen=True, slots=True)
class Break:
    """What became of the requests of an engine that was killed, and of the other engine's."""

    streams: list[Stream]
    whole: list[httpx.Response]
    attempts: Mapping[str, int]
    """Of each request, by its id."""

    def of(self, kind: str) -> list[Stream]:
        """The streams of one kind."""
        return [stream for stream in self.streams if stream.kind == kind]

    def is_carried_on(self, stream: Stream) -> bool:
        """Whether a stream needed a second engine."""
        return self.attempts[stream.request_id] > 1


@pytest.fixture(scope="module")
def pair(gateway: GatewayProcess, dev_config: Document) -> None:
    """The twins with two engines, beside the other models."""
    deploy_twins(gateway, dev_config, 2)


@pytest.fixture(scope="module")
def unbroken(gateway: GatewayProcess, pair: None) -> dict[str, Stream]:
    """What clients get while nothing happens."""

    async def ask_all(http: httpx.AsyncClient) -> dict[str, Stream]:
        streams = {kind: Stream(kind, f"unbroken-{kind.replace(' ', '-')}") for kind in ALIKE}
        for stream in streams.values():
            await stream.read(http)
            stream.assert_is_one()
        return streams

    return with_client(gateway, ask_all)


@pytest.fixture(scope="module", params=["replica", "engine core"])
def broken(
    gateway: GatewayProcess, unbroken: dict[str, Stream], request: pytest.FixtureRequest
) -> Break:
    """An engine killed while both have a stream of each kind, and requests without streaming."""
    wait_for(lambda: is_complete(gateway), REPLACED_TIMEOUT_S)
    kind = request.param.replace(" ", "-")
    replica, other = gateway.replica_processes(MODEL)
    core = core_of(replica)
    victim = replica if kind == "replica" else core

    async def ask_and_kill(http: httpx.AsyncClient) -> Break:
        for name in (f"{kind}-{number}" for number in range(ROUNDS)):
            await warm_up(http, name)
            await asyncio.to_thread(wait_for, lambda: is_complete(gateway))
            async with asyncio.TaskGroup() as group:
                with suspended(core), suspended(core_of(other)) as rest:
                    whole = ask_whole(http, group, name)
                    await asyncio.to_thread(wait_for, lambda: sum(loads(gateway)) == WHOLE)
                    streams = await placed(http, group, name)
                    is_at_work = await come_to_middle(core, rest, streams)
                    if is_at_work:
                        victim.kill()
            if is_at_work:
                answers = [task.result() for task in whole]
                return Break(streams, answers, await attempts(http))
            await asyncio.to_thread(wait_for, lambda: is_complete(gateway))
        raise AssertionError("the engine was at the end of a stream whenever it was to be killed")

    return with_client(gateway, ask_and_kill)


async def attempts(http: httpx.AsyncClient) -> dict[str, int]:
    """How many engines each request has been sent to, by its id."""
    return Counter(decision["request_id"] for decision in await decisions(http))


async def replica_of(http: httpx.AsyncClient, request_id: str) -> str:
    """Where a request has been sent, as soon as it has; its reply begins when an engine does."""
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        while True:
            for decision in await decisions(http):
                if decision["request_id"] == request_id:
                    replica: str = decision["replica"]
                    return replica
            await asyncio.sleep(SETTLED_S)


async def decisions(http: httpx.AsyncClient) -> list[Document]:
    """Where requests were sent to, the last one first."""
    answer = await http.get("/gateway/decisions", params={"model": MODEL})
    found: list[Document] = answer.json()["data"]
    return found


def core_of(replica: psutil.Process) -> psutil.Process:
    """The process that does an engine's work; its replica's answers, and tells how it is."""
    (core,) = [child for child in replica.children() if "EngineCore" in command_line(child)]
    return core


@contextlib.contextmanager
def suspended(process: psutil.Process) -> Iterator[contextlib.ExitStack]:
    """A process that stands still, until what is given is closed or this is left."""
    process.suspend()
    with contextlib.ExitStack() as still:
        still.callback(go_on, process)
        yield still


def go_on(process: psutil.Process) -> None:
    """Let a suspended process go on, if it has not been killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


async def warm_up(http: httpx.AsyncClient, name: str) -> None:
    """Have each of two idle engines answer once: a new one takes long for its first steps."""
    streams = [Stream("chat", f"{name}-first-{number}") for number in range(2)]
    await asyncio.gather(*(stream.read(http) for stream in streams))
    assert len({stream.replica for stream in streams}) == 2


def ask_whole(
    http: httpx.AsyncClient, group: asyncio.TaskGroup, name: str
) -> list[asyncio.Task[httpx.Response]]:
    """Requests without streaming, on their way."""
    path, body = ALIKE["chat"]
    ids = [f"{name}-whole-{number}" for number in range(WHOLE)]
    return [
        group.create_task(http.post(path, json=body, headers={"x-request-id": id_})) for id_ in ids
    ]


async def placed(http: httpx.AsyncClient, group: asyncio.TaskGroup, name: str) -> list[Stream]:
    """Streams of all kinds, at least one of each with each of two engines that stand still."""
    streams: list[Stream] = []
    for kind in KINDS:
        replicas: set[str] = set()
        for number in range(MOST_EACH):
            stream = Stream(kind, f"{name}-{kind.replace(' ', '-')}-{number}")
            group.create_task(stream.read(http))
            stream.replica = await replica_of(http, stream.request_id)
            streams.append(stream)
            replicas.add(stream.replica)
            if len(replicas) == 2:
                break
    return streams


async def come_to_middle(
    core: psutil.Process, rest: contextlib.ExitStack, streams: Sequence[Stream]
) -> bool:
    """Let an engine go on until all of its streams have come to their middle; False if too far.

    The other engine stands still until the first event tells which streams are whose; then `rest`
    is closed, which holds it: one that stands still for long is given up.
    """
    async with asyncio.timeout(MIDDLE_TIMEOUT_S):
        await advance(core, streams)
        (replica,) = {stream.replica for stream in streams if stream.has_begun}
        rest.close()
        its = [stream for stream in streams if stream.replica == replica]
        while not all(stream.has_come_to_middle for stream in its):
            await advance(core, its)
    assert {stream.kind for stream in its} == set(KINDS), "each engine has a stream of each kind"
    return not any(stream.is_done for stream in its)


async def advance(core: psutil.Process, streams: Sequence[Stream]) -> None:
    """Let an engine go on, in turns that get longer, until more of its streams has come.

    After each it stands still: it must not run away from clients that have no time to read.
    """
    before = sum(len(stream.content) for stream in streams)
    turn_s = FIRST_TURN_S
    while sum(len(stream.content) for stream in streams) == before:
        take_turn(core, turn_s)
        await asyncio.sleep(SETTLED_S)
        turn_s = min(2 * turn_s, LAST_TURN_S)


def take_turn(process: psutil.Process, turn_s: float) -> None:
    """Let a suspended process go on for so long, and no longer because there is much to read."""
    process.resume()
    time.sleep(turn_s)  # noqa: TID251 - the event loop would come back to it late
    process.suspend()


def with_client(gateway: GatewayProcess, use: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """What comes of a client's requests."""

    async def run() -> T:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=REQUEST_TIMEOUT_S) as http:
            return await use(http)

    return asyncio.run(run())


def is_complete(gateway: GatewayProcess) -> bool:
    """Whether both engines are there and idle, and the gateway has noticed those that went."""
    is_there = running(gateway) == 2 == len(gateway.replica_processes(MODEL))
    return is_there and loads(gateway) == [0, 0]


def loads(gateway: GatewayProcess) -> list[int]:
    """How many requests each engine has that a request may go to now."""
    return [one["running"] + one["waiting"] for one in candidates(gateway)]


def candidates(gateway: GatewayProcess) -> list[Document]:
    """The engines that a request may go to now, as the gateway sees them."""
    _, choice = gateway.request("POST", "/gateway/route", chat("Say hello.")[1])
    found: list[Document] = choice["candidates"]
    return found


def _delta(choice: Document) -> Document:
    delta: Document = choice.get("delta") or {}
    return delta


@pytest.mark.parametrize("kind", ALIKE)
def test_a_killed_engine_is_not_noticed(
    broken: Break, unbroken: dict[str, Stream], kind: str
) -> None:
    """The stream is the unbroken one: its text, its usage, its finish, and one of each."""
    streams, model = broken.of(kind), unbroken[kind]

    assert {broken.is_carried_on(stream) for stream in streams} == {True, False}
    for stream in streams:
        stream.assert_is_one()
        assert (stream.text, stream.usage, stream.finish) == (model.text, model.usage, model.finish)


def test_a_sampled_stream_goes_on(gateway: GatewayProcess, broken: Break) -> None:
    """One stream, in which nothing is missing and nothing said twice: the tokens are as many."""
    streams = broken.of(SAMPLED)

    assert any(broken.is_carried_on(stream) for stream in streams)
    for stream in streams:
        stream.assert_is_one()
        body = {"model": MODEL, "prompt": stream.text, "add_special_tokens": False}
        _, tokens = gateway.request("POST", "/tokenize", body)
        assert stream.finish == "stop"
        # The one that ends it has no text; a word that was cut may have had other ones.
        assert abs(stream.usage["completion"] - 1 - tokens["count"]) <= CUT_TOKENS


def test_a_stream_that_is_not_to_be_resumed_ends_with_an_error(
    broken: Break, unbroken: dict[str, Stream]
) -> None:
    """`x-gateway-resume: off`: what the engine has said, an error event, `[DONE]`."""
    text = unbroken["chat"].text
    streams = broken.of(NOT_RESUMED)
    cut = [stream for stream in streams if "error" in stream.events[-1]]

    assert 0 < len(cut) < len(streams)
    assert all(stream.is_done for stream in streams)
    assert {broken.attempts[stream.request_id] for stream in streams} == {1}
    for stream in cut:
        assert stream.events[-1]["error"]["code"] == "upstream_failed"
        assert stream.finish is None
        assert text.startswith(stream.text)
    assert {stream.text for stream in streams if stream not in cut} == {text}


def test_requests_of_a_killed_engine_are_answered_by_another(
    broken: Break, unbroken: dict[str, Stream]
) -> None:
    """All of them, with the answer that they would have had."""
    answers = [answer.json() for answer in broken.whole]

    assert [answer.status_code for answer in broken.whole] == [200] * WHOLE
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {
        unbroken["chat"].text
    }
    assert {broken.attempts[a.headers["x-request-id"]] for a in broken.whole} == {1, 2}


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(
    gateway: GatewayProcess, pair: None, is_stream: bool
) -> None:
    """What nobody reads is aborted, long before its end, with and without streaming."""
    body = {"model": MODEL, "prompt": STORY, "ignore_eos": True, "stream": is_stream}
    request_id = f"leaves-{is_stream}"

    wait_for(lambda: not any(loads(gateway)))

    async def leave(http: httpx.AsyncClient) -> None:
        endless = {**body, "max_tokens": ENDLESS}
        headers = {"x-request-id": request_id}
        asking = asyncio.create_task(http.post(TEXT, json=endless, headers=headers))
        await asyncio.to_thread(wait_for, lambda: has_begun(gateway))
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()

    with_client(gateway, leave)
    wait_for(lambda: outcome(gateway, request_id))

    assert outcome(gateway, request_id)["is_aborted"]
    assert not any(loads(gateway))


def has_begun(gateway: GatewayProcess) -> bool:
    """Whether an engine of the model says that it has a request, and is done with its prompt."""
    return any(one["running"] and not one["pending_tokens"] for one in candidates(gateway))


def outcome(gateway: GatewayProcess, request_id: str) -> Document:
    """How a request turned out, by its engine's word; empty before that has come."""
    _, decisions = gateway.request("GET", f"/gateway/decisions?model={MODEL}")
    (decision,) = [d for d in decisions["data"] if d["request_id"] == request_id]
    actual: Document = decision["actual"] or {}
    return actual


def test_what_goes_finishes_what_it_has(
    gateway: GatewayProcess, dev_config: Document, unbroken: dict[str, Stream]
) -> None:
    """A deploy takes an engine away and replaces the router: no stream is cut."""
    wait_for(lambda: is_complete(gateway), REPLACED_TIMEOUT_S)
    changed = copy.deepcopy(with_twins(dev_config, 1))
    front = changed["applications"][0]
    front["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.21}
    replaced = routers(gateway)

    async def update(http: httpx.AsyncClient) -> list[Stream]:
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            loads = [group.create_task(stream_on(http, client, is_over)) for client in range(4)]
            await asyncio.to_thread(gateway.deploy, changed)
            await asyncio.to_thread(
                wait_for,
                lambda: (
                    len(gateway.replica_processes(MODEL)) == 1
                    and replaced.isdisjoint(routers(gateway))
                ),
                REPLACED_TIMEOUT_S,
            )
            is_over.set()
        return [stream for load in loads for stream in load.result()]

    streams = with_client(gateway, update)

    assert len({stream.replica for stream in streams}) == 2
    for stream in streams:
        model_stream = unbroken[stream.kind]
        stream.assert_is_one()
        assert (stream.text, stream.usage) == (model_stream.text, model_stream.usage)


def routers(gateway: GatewayProcess) -> set[int]:
    """The process ids of the routers."""
    return {process.pid for process in gateway.replica_processes("gateway", "Router")}


async def stream_on(http: httpx.AsyncClient, client: int, is_over: asyncio.Event) -> list[Stream]:
    """One stream after the other."""
    streams: list[Stream] = []
    kinds = itertools.cycle(ALIKE)
    while not is_over.is_set():
        streams.append(Stream(next(kinds), f"client-{client}-{len(streams)}"))
        await streams[-1].read(http)
    return streams
