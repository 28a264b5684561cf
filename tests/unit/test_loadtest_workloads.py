"""What load tests send: what is shared, what is not, and how long it is."""

import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from loadtests.texts import BYTES_PER_TOKEN
from loadtests.workloads.agents import KINDS
from loadtests.workloads.catalogue import WORKLOADS
from loadtests.workloads.dialogue import Dialogue
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Turn

COUNT = 200
SMALL = Sizes(scale=0.05, longest_prompt_tokens=1500, longest_answer_tokens=60)
ANSWER = "So it is."
PLAIN = ("loadtests.users.load", "loadtests.users.results", "loadtests.users.table")


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
            talk.go_on(ANSWER)

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
def test_a_user_always_sends_the_same(name: str) -> None:
    """Users and seeds decide it all: the same twice, another for another user."""
    first = turns(name)

    assert turns(name) == first
    assert turns(name, user=1) != first


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(
    "sizes", [SMALL, Sizes(longest_prompt_tokens=3000, longest_answer_tokens=100)]
)
def test_lengths_are_within_their_limits(name: str, sizes: Sizes) -> None:
    """However long production's texts are, a small model gets what it can take."""
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
def test_a_turn_goes_on_from_the_turn_before(name: str) -> None:
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


def test_chats_share_a_system_prompt_and_nothing_else() -> None:
    """What people say first is their own."""
    first = [talk[0].messages for talk in conversations("chat")]

    assert len({messages[0] for messages in first}) == 1
    assert len({messages[1].content[:40] for messages in first}) == len(first)


def test_people_think_between_turns() -> None:
    """For seconds, and not always equally long."""
    pauses_s = [turn.pause_s for turn in turns("chat", Sizes())]

    assert min(pauses_s) >= 10
    assert len(set(pauses_s)) == COUNT


def test_agents_send_what_their_tools_say() -> None:
    """Each result answers the call before it; instructions are those of a few kinds."""
    histories = [talk[-1].messages for talk in conversations("agents")]
    results = 0
    for messages in histories:
        for call, result in zip(messages[2::2], messages[3::2], strict=True):
            assert result.role == "tool"
            assert [result.tool_call_id] == [made.id for made in call.tool_calls]
            results += 1

    assert results > COUNT / 2
    assert 1 < len({messages[0].content for messages in histories}) <= KINDS


def test_few_tenants_send_most() -> None:
    """Each tenant has a system prompt; the popular ones come again and again, others once."""
    counts = Counter(turn.messages[0].content for turn in turns("tenants", count=1000))

    assert len(counts) > 50
    assert max(counts.values()) > 5 * min(counts.values())
    assert len({content[:40] for content in counts}) == len(counts)


def test_rag_prompts_share_passages_but_seldom_their_beginning() -> None:
    """The same passage stands in several prompts, at different places."""
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
def test_batch_alone_is_of_batch_priority(name: str) -> None:
    """And does not think."""
    for turn in turns(name):
        assert turn.is_batch == (name == "batch")
        assert (turn.pause_s == 0) == (name == "batch")


@pytest.mark.parametrize("name", ["chat", "tenants", "agents", "rag", "batch"])
def test_another_seed_shares_nothing(name: str) -> None:
    """Nobody finds in a cache what an earlier test has left there."""
    ours = {turn.messages[0].content for turn in turns(name)}
    theirs = {turn.messages[0].content for turn in turns(name, seed="another")}

    assert not ours & theirs


def test_mixed_is_a_bit_of_everything() -> None:
    """Agents' tools, tenants' single questions, and chats of more than one turn."""
    talks = conversations("mixed")
    roles = {message.role for talk in talks for message in talk[-1].messages}

    assert "tool" in roles
    assert {len(talk) for talk in talks} > {1, 2}


def test_a_conversation_that_fails_is_given_up() -> None:
    """The next turn begins another one."""
    talk = dialogue("agents")
    talk.go_on(ANSWER)
    assert len(talk.turn.messages) == 4

    talk.give_up()

    assert len(talk.turn.messages) == 2


def test_popular_models_are_asked_more() -> None:
    """The second half as often as the first, the third a third as often."""
    talk = Dialogue(WORKLOADS["none"](SMALL, "seed"), ["a", "b", "c"], random.Random(0))  # noqa: S311 - load
    counts: Counter[str] = Counter()
    for _ in range(1100):
        counts[talk.model] += 1
        talk.go_on(ANSWER)

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


def test_nothing_but_locust_itself_is_patched() -> None:
    """Who uses workloads and results does not get gevent with them."""
    code = f"import sys, {', '.join(PLAIN)}; sys.exit('gevent' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
