"""Workloads of load tests: shared and unshared text, lengths, and trace replay."""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors.startup import ConfigError
from gateway.simulation.trace import BLOCK_TOKENS, trace_request
from loadtests.workloads.conversations import AGENT_KINDS, WORKLOADS, Dialogue
from loadtests.workloads.replay import Replay
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.texts import BYTES_PER_TOKEN, prompt_text
from loadtests.workloads.turn import Turn

COUNT = 200
SMALL = Sizes(scale=0.05, longest_prompt_tokens=1500, longest_answer_tokens=60)
ANSWER = "So it is."
PLAIN = ("loadtests.workloads.conversations", "loadtests.locust_users.results")


def dialogue(name: str, sizes: Sizes = SMALL, user: int = 0, seed: str = "seed") -> Dialogue:
    """A user's conversations."""
    return Dialogue(WORKLOADS[name](sizes, seed), ["model"], random.Random(user))  # noqa: S311 - load


def turns(
    name: str, sizes: Sizes = SMALL, user: int = 0, seed: str = "seed", count: int = COUNT
) -> list[Turn]:
    """The first turns of a user whose turns are always answered."""
    talk = dialogue(name, sizes, user, seed)

    def each() -> Iterator[Turn]:
        while True:
            yield talk.turn
            talk.advance(ANSWER)

    return list(itertools.islice(each(), count))


def conversations(name: str) -> list[list[Turn]]:
    """A user's turns, a list for each conversation."""
    found: list[list[Turn]] = []
    for turn in turns(name):
        if found and len(turn.messages) > len(found[-1][-1].messages):
            found[-1].append(turn)
        else:
            found.append([turn])
    return found


@pytest.mark.parametrize("name", WORKLOADS)
def test_users_and_seeds_determine_all_that_is_sent(name: str) -> None:
    """The same twice, and something else for another user."""
    first = turns(name)

    assert turns(name) == first
    assert turns(name, user=1) != first


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(
    "sizes", [SMALL, Sizes(longest_prompt_tokens=3000, longest_answer_tokens=100)]
)
def test_lengths_are_within_their_limits(name: str, sizes: Sizes) -> None:
    """However long production's texts are, a small model gets what fits."""
    for turn in turns(name, sizes):
        assert 0 < turn.prompt_tokens <= sizes.longest_prompt_tokens
        assert 0 < turn.answer_tokens <= sizes.longest_answer_tokens
        assert all(message.content for message in turn.messages)


@pytest.mark.parametrize("name", WORKLOADS)
def test_lengths_and_pauses_are_scaled(name: str) -> None:
    """A tenth of the scale is a tenth of the text, of the answers and of the pauses."""
    whole = turns(name, Sizes())[:20]
    tenth = turns(name, Sizes(scale=0.1, think_scale=0.1))[:20]

    # the first message of the first prompt: from then on conversations go their own ways
    assert len(tenth[0].messages[0].content) == pytest.approx(
        len(whole[0].messages[0].content) / 10, rel=0.05
    )
    assert tenth[0].answer_tokens == pytest.approx(whole[0].answer_tokens / 10, abs=1)
    assert tenth[0].pause_s == pytest.approx(whole[0].pause_s / 10)


@pytest.mark.parametrize("name", ["chat", "agents"])
def test_a_turn_continues_the_turn_before(name: str) -> None:
    """Its messages are those before, the model's own answer, and something new."""
    several = [talk for talk in conversations(name) if len(talk) > 1]

    assert len(several) > 5
    for talk in several:
        for before, after in itertools.pairwise(talk):
            known = len(before.messages)
            assert after.messages[:known] == before.messages
            assert after.messages[known].role == "assistant"
            assert after.messages[known].content == ANSWER
            assert len(after.messages) == known + 2


def test_chats_share_only_a_system_prompt() -> None:
    """First messages are all different."""
    first = [talk[0].messages for talk in conversations("chat")]

    assert len({messages[0] for messages in first}) == 1
    assert len({messages[1].content[:40] for messages in first}) == len(first)


def test_agents_send_the_results_of_their_tools() -> None:
    """Each result answers the call before it; there are a few kinds of instructions."""
    histories = [talk[-1].messages for talk in conversations("agents")]
    results = 0
    for messages in histories:
        for call, result in zip(messages[2::2], messages[3::2], strict=True):
            assert result.role == "tool"
            assert [result.tool_call_id] == [made.id for made in call.tool_calls]
            results += 1

    assert results > COUNT / 2
    assert 1 < len({messages[0].content for messages in histories}) <= AGENT_KINDS


def test_a_few_tenants_send_most_requests() -> None:
    """Each tenant has a system prompt of its own."""
    counts = Counter(turn.messages[0].content for turn in turns("tenants", count=1000))

    assert len(counts) > 50
    assert max(counts.values()) > 5 * min(counts.values())
    assert len({content[:40] for content in counts}) == len(counts)


def test_rag_prompts_share_passages_but_seldom_their_beginning() -> None:
    """The same passage is in several prompts, at different places."""
    prompts = [turn.messages[1].content for turn in turns("rag")]
    passages = Counter(itertools.chain.from_iterable(prompt.split("\n") for prompt in prompts))
    beginnings = Counter(prompt[:80] for prompt in prompts)

    assert sum(count > 1 for count in passages.values()) > 100
    assert sum(count for count in beginnings.values() if count > 1) < COUNT / 2


def test_nothing_is_shared_in_none() -> None:
    """No two prompts begin alike."""
    prompts = [turn.messages[0].content for turn in turns("none")]

    assert len({prompt[:40] for prompt in prompts}) == COUNT


@pytest.mark.parametrize("name", WORKLOADS)
def test_only_batch_has_batch_priority(name: str) -> None:
    """And no pauses."""
    for turn in turns(name):
        assert turn.is_batch == (name == "batch")
        assert (turn.pause_s == 0) == (name == "batch")


@pytest.mark.parametrize("name", ["chat", "tenants", "agents", "rag", "batch"])
def test_seeds_share_no_text(name: str) -> None:
    """So a test finds nothing in the caches that an earlier one has filled."""
    ours = {turn.messages[0].content for turn in turns(name)}
    theirs = {turn.messages[0].content for turn in turns(name, seed="another")}

    assert not ours & theirs


def test_mixed_has_conversations_of_every_kind() -> None:
    """Agents' tools, tenants' single questions, and chats of more than one turn."""
    talks = conversations("mixed")
    roles = {message.role for talk in talks for message in talk[-1].messages}

    assert "tool" in roles
    assert {len(talk) for talk in talks} > {1, 2}


def test_a_failed_conversation_is_abandoned() -> None:
    """The next turn starts another one."""
    talk = dialogue("agents")
    talk.advance(ANSWER)
    assert len(talk.turn.messages) == 4

    talk.abandon()

    assert len(talk.turn.messages) == 2


def test_popular_models_are_asked_more_often() -> None:
    """The second half as often as the first, the third a third as often."""
    talk = Dialogue(WORKLOADS["none"](SMALL, "seed"), ["a", "b", "c"], random.Random(0))  # noqa: S311 - load
    counts: Counter[str] = Counter()
    for _ in range(1100):
        counts[talk.model] += 1
        talk.advance(ANSWER)

    assert counts["a"] == pytest.approx(600, abs=60)
    assert counts["b"] == pytest.approx(300, abs=60)
    assert counts["c"] == pytest.approx(200, abs=60)


def test_sizes_fit_a_small_context() -> None:
    """Prompt and answer have room even if a tokenizer makes a third more tokens than we count."""
    sizes = Sizes.fitting(8192, most_tokens=0, scale=0.0, think_scale=1.0)

    assert sizes.longest_prompt_tokens * 4 / 3 + sizes.longest_answer_tokens < 8192
    assert sizes.scale < 0.5
    assert Sizes.fitting(131_072, most_tokens=0, scale=0.0, think_scale=1.0).scale == 1
    assert Sizes.fitting(8192, most_tokens=500, scale=1.0, think_scale=1.0).scale == 1
    assert max(turn.prompt_tokens for turn in turns("chat", sizes)) * BYTES_PER_TOKEN > 8192


def test_workloads_and_results_do_not_import_gevent() -> None:
    """Importing locust patches the whole process."""
    code = f"import sys, {', '.join(PLAIN)}; sys.exit('gevent' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prompts_share_as_much_text_as_keys() -> None:
    """Equal keys are equal text, also in another prompt; the rest is the request's own."""
    block = BLOCK_TOKENS * BYTES_PER_TOKEN
    first = prompt_text(trace_request(0, 2 * BLOCK_TOKENS + 100, 1, [1, 2, 3]), "request 1")
    second = prompt_text(trace_request(9, 3 * BLOCK_TOKENS, 5, [1, 2, 4]), "")

    assert first[: 2 * block] == second[: 2 * block]
    assert first[2 * block :].startswith("request 1")
    assert first[2 * block :][:40] != second[2 * block :][:40]


@pytest.mark.parametrize("tokens", [1, 100, BLOCK_TOKENS, BLOCK_TOKENS + 1, 5 * BLOCK_TOKENS - 1])
def test_a_prompt_is_as_long_as_its_tokens(tokens: int) -> None:
    """Four bytes a token, whatever the blocks and the tail come to, and all of them ASCII."""
    prompt = prompt_text(trace_request(0, tokens, 1, range(5)), "the 17th request")

    assert len(prompt.encode()) == tokens * 4


LINES = [
    {"timestamp": 1000, "input_length": 1100, "output_length": 40, "hash_ids": [7, 8, 1]},
    {"timestamp": 3000, "input_length": 1300, "output_length": 80, "hash_ids": [7, 8, 2]},
    {"timestamp": 9000, "input_length": 1024, "output_length": 10, "hash_ids": [7, 9]},
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of three requests that share their first block, two of them the second."""
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def replayed(path: Path, sizes: Sizes, seed: str = "seed") -> list[str]:
    """The prompts of a replay."""
    return [turn.messages[0].content for _, turn in Replay.read(path, 1.0, sizes, seed).timed()]


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equal_ids_of_a_trace_give_equal_text(trace: Path, scale: float) -> None:
    """As many whole blocks are shared as ids are, whatever the scale."""
    size = round(BLOCK_TOKENS * scale) * BYTES_PER_TOKEN
    first, second, third = replayed(trace, Sizes(scale=scale))

    assert first[: 2 * size] == second[: 2 * size]
    assert first[2 * size :][:12] != second[2 * size :][:12]
    assert third[:size] == first[:size]
    assert third[size:][:40] != first[size:][:40]


def test_seeds_of_a_replay_share_no_text(trace: Path) -> None:
    """The same seed gives the same again; another finds nothing in the caches."""
    short = {"timestamp": 9000, "input_length": 100, "output_length": 10, "hash_ids": [3]}
    trace.write_text(trace.read_text() + json.dumps(short))
    ours, again, theirs = (replayed(trace, Sizes(), seed) for seed in ("a", "a", "b"))

    assert ours == again
    assert [len(prompt) for prompt in ours] == [len(prompt) for prompt in theirs]
    cached = 64  # bytes: a block of the caches has 16 tokens
    assert not {prompt[:cached] for prompt in ours} & {prompt[:cached] for prompt in theirs}


def test_a_replay_scales_and_cuts_prompts_and_answers(trace: Path) -> None:
    """A prompt that is too long is cut at its end, so that what is shared stays shared."""
    whole, half = (Replay.read(trace, 1.0, Sizes(scale=scale), "seed") for scale in (1, 0.5))
    cut = replayed(trace, Sizes(longest_prompt_tokens=600))

    assert [turn.prompt_tokens for _, turn in whole.timed()] == [1100, 1300, 1024]
    assert [turn.answer_tokens for _, turn in whole.timed()] == [40, 80, 10]
    assert [turn.prompt_tokens for _, turn in half.timed()] == [550, 650, 512]
    assert [turn.answer_tokens for _, turn in half.timed()] == [20, 40, 5]
    assert cut == [prompt[: 600 * BYTES_PER_TOKEN] for prompt in replayed(trace, Sizes())]


@pytest.mark.parametrize(("speed", "times_s"), [(1.0, [0, 2, 8]), (2.0, [0, 1, 4])])
def test_a_replay_has_the_times_of_its_trace(
    trace: Path, speed: float, times_s: list[float]
) -> None:
    """Seconds since the first request, at a multiple of the speed."""
    assert [at_s for at_s, _ in Replay.read(trace, speed, Sizes(), "seed").timed()] == times_s


def test_a_malformed_trace_is_named_with_its_line(trace: Path) -> None:
    """Before anything is sent."""
    trace.write_text("{}\n")
    with pytest.raises(ConfigError, match=r"trace.jsonl:1: "):
        Replay.read(trace, 1.0, Sizes(), "seed")
