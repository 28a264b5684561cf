"""The steps of the check: each does one thing, says what it found, and fails if that is wrong."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from deployments.local.dashboard import deploy
from gateway import header_names
from loadtests.gpu_check.client import CheckedGateway, read_events
from loadtests.gpu_check.document import ADAPTER, SLOTS, tensor_entry
from loadtests.launch import pause
from loadtests.targets import serve_config

QUESTION = "Who are you, and what can you do? Answer at length."
START_TIMEOUT_S = 240.0
"""Time for another engine to start."""
CLIENTS = 3 * SLOTS
STREAM_TOKENS = 400
EVENTS_BEFORE_KILL = 20
PREFIX_WORDS = 150
FOLLOWERS = 4
CACHED_SHARE = 0.5
DOCKER_TIMEOUT_S = 120
DASHBOARD = "RAY_DASHBOARD_ADDRESS"
REPLICA = header_names.REPLICA.decode()


class StepFailed(Exception):
    """The gateway did not do what was expected; the message says what it did."""


class Skipped(Exception):
    """The step cannot be taken here; the message says why."""


def answer_step(gateway: CheckedGateway) -> str:
    """Ask the same question three times."""
    whole = [gateway.chat(QUESTION).raise_for_status().json() for _ in range(2)]
    first, second = (each["choices"][0]["message"]["content"] for each in whole)
    with gateway.stream(QUESTION) as response:
        streamed = read_events(response.iter_lines())
    _check(bool(first), "the answer is empty")
    _check(first == second, f"two answers differ: {first!r}, {second!r}")
    _check(streamed.text == first, f"the stream differs: {streamed.text!r}, not {first!r}")
    usage = whole[0]["usage"]
    _check(usage["completion_tokens"] > 0, f"the usage is {usage}")
    return f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens: {first[:60]!r}"


def adapter_step(gateway: CheckedGateway) -> str:
    """Ask the adapter."""
    answer = gateway.chat(QUESTION, ADAPTER).raise_for_status().json()
    _check(answer["model"] == ADAPTER, f"{answer['model']} answered")
    _check(bool(answer["choices"][0]["message"]["content"]), "the answer is empty")
    _wait(lambda: gateway.condition(ADAPTER).get("loaded_replicas"), "it is loaded nowhere", 10)
    return f"loaded on {gateway.condition(ADAPTER)['loaded_replicas']} replica"


def autoscaling_step(gateway: CheckedGateway) -> str:
    """Keep more streams under way than one replica has room for, until there are two."""
    began_s, is_over = time.monotonic(), [False]

    def send(number: int) -> list[str]:
        failures = []
        while not is_over[0]:
            with gateway.stream(f"{number}: {QUESTION}", ignore_eos=True) as response:
                if error := read_events(response.iter_lines()).error:
                    failures.append(error)
        return failures

    with ThreadPoolExecutor(CLIENTS) as pool:
        sent = [pool.submit(send, number) for number in range(CLIENTS)]
        try:
            _wait(lambda: _ready(gateway) >= 2, "there is still one replica")
        finally:
            is_over[0] = True
    scaled_s = time.monotonic() - began_s
    failures = list(itertools.chain.from_iterable(each.result() for each in sent))
    _check(not failures, f"{len(failures)} requests failed: {failures[:1]}")
    return f"two replicas after {scaled_s:.0f} s under {CLIENTS} streams"


def prefix_step(gateway: CheckedGateway) -> str:
    """Send prompts with the same long beginning, and compare who answers."""
    _wait(lambda: _ready(gateway) >= 2, "there is one replica only")
    prefix = " ".join(f"fact {number}" for number in range(PREFIX_WORDS))
    first = gateway.chat(f"{prefix}. Question 0?").raise_for_status()
    pause()  # until the engine has told of its cache
    pause()
    followers = [
        gateway.chat(f"{prefix}. Question {number}?").raise_for_status()
        for number in range(1, FOLLOWERS + 1)
    ]
    replicas = {each.headers[REPLICA] for each in (first, *followers)}
    _check(len(replicas) == 1, f"they went to {', '.join(sorted(replicas))}")
    shares = []
    for each in followers:
        usage = each.json()["usage"]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        shares.append(cached / usage["prompt_tokens"])
    _check(min(shares) >= CACHED_SHARE, f"cached are {min(shares):.0%} of a prompt")
    return f"{len(followers)} prompts to {replicas.pop()}; cached: {min(shares):.0%} at least"


def resume_step(gateway: CheckedGateway) -> str:
    """Kill the engine of a stream, and read the stream to its end."""
    _wait(lambda: _ready(gateway) >= 2, "there is no second replica to go on with")
    options = {"max_tokens": STREAM_TOKENS, "ignore_eos": True}
    with gateway.stream(QUESTION, **options) as response:
        undisturbed = read_events(response.iter_lines())
    with gateway.stream(QUESTION, **options) as response:
        pids = {row["replica"]: row["pid"] for row in gateway.replicas()}
        victim = pids[response.headers[REPLICA]]
        lines = response.iter_lines()
        read = list(itertools.islice(_events(lines), EVENTS_BEFORE_KILL))
        os.kill(victim, signal.SIGKILL)
        resumed = read_events(itertools.chain(read, lines))
    _check(not resumed.error, f"the stream ended with an error: {resumed.error}")
    _check(resumed.finish_reason == "length", f"it ended by {resumed.finish_reason}")
    request = response.headers["x-request-id"]
    row = gateway.http.get(f"/gateway/requests/{request}").raise_for_status().json()["data"][0]
    _check(row["attempts"] > 1, "the engine had finished before it was killed")

    def is_replaced() -> bool:
        return _ready(gateway) >= 2 and victim not in {r["pid"] for r in gateway.replicas()}

    _wait(is_replaced, "the killed replica was not replaced")
    same = "the same text" if resumed.text == undisturbed.text else "another text"
    return f"process {victim} killed; {row['attempts']} attempts; {same} as undisturbed; replaced"


def tensor_step(
    gateway: CheckedGateway,
    entry: dict[str, object],
    port: int,
    gpus: int,
    environment: Mapping[str, str],
) -> str:
    """Deploy the model on two GPUs together, in place of what runs."""
    if gpus < 2:
        raise Skipped(f"it needs two GPUs, here are {gpus}")
    before = {row["replica"] for row in gateway.replicas()}
    deploy(serve_config(port, tensor_entry(entry)), environment[DASHBOARD], environment)

    def is_replaced() -> bool:
        replicas = {row["replica"] for row in gateway.replicas() if row["state"] == "ready"}
        return len(replicas) == 1 and replicas.isdisjoint(before)

    _wait(is_replaced, "the model has not come up on two GPUs")
    answer = gateway.chat(QUESTION).raise_for_status().json()
    text = answer["choices"][0]["message"]["content"]
    _check(bool(text), "the answer is empty")
    return f"{text[:60]!r}"


def image_step(image: str, docker: str | None) -> str:
    """Look at the GPUs from inside the image, and check its config there."""
    if docker is None:
        raise Skipped("Docker is not installed here")
    if _run(docker, "image", "inspect", image).returncode:
        raise Skipped(f"there is no image {image}: docker build -t {image} .")
    run = (docker, "run", "--rm", "--gpus", "all", "--entrypoint")
    count = "import ray, torch, vllm; print(torch.cuda.device_count())"
    seen = _run(*run, "python3", image, "-c", count)
    _check(not seen.returncode, f"it does not start: {seen.stderr[-300:]}")
    gpus = seen.stdout.split()[-1]
    _check(gpus != "0", "it sees no GPU")
    checked = _run(*run, "gateway", image, "check", "configs/prod.yaml")
    _check(not checked.returncode, f"its config is refused: {checked.stderr[-300:]}")
    return f"{gpus} GPUs; configs/prod.yaml is valid there"


def _events(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.startswith("data: "))


def _ready(gateway: CheckedGateway) -> int:
    return sum(row["state"] == "ready" for row in gateway.replicas())


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DOCKER_TIMEOUT_S
    )


def _check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise StepFailed(otherwise)


def _wait(
    condition: Callable[[], object], otherwise: str, timeout_s: float = START_TIMEOUT_S
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise StepFailed(f"after {timeout_s:g} s, {otherwise}")
        pause()
