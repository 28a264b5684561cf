"""Conversations of several turns that share a few long system prompts; fixed by their seed."""

import random
from dataclasses import dataclass

TOPICS = ("gardens", "ships", "bridges", "stars")
ASPECTS = ("history", "repair", "cost", "colour", "safety", "names", "builders", "weather")
RULES = 40
"""Sentences of a system prompt: some 25 tokens each with the demo model's tokenizer."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one user asks, one question after another's answer."""

    system: str
    questions: tuple[str, ...]


def conversations(
    count: int, turns: int, seed: int, topics: tuple[str, ...] = TOPICS
) -> list[Conversation]:
    """So many conversations, in random order; no two seeds share a prefix."""
    rng = random.Random(seed)  # noqa: S311 - a workload is no secret
    systems = [_system(topic, seed, rng) for topic in topics]
    return [
        Conversation(
            system=rng.choice(systems),
            questions=tuple(
                f"Question {turn + 1} of guest {number}: what should I know about the"
                f" {rng.choice(ASPECTS)} and the {rng.choice(ASPECTS)}?"
                for turn in range(turns)
            ),
        )
        for number in range(count)
    ]


def _system(topic: str, seed: int, rng: random.Random) -> str:
    rules = (
        f"Rule {number + 1}: a guest who asks about the {rng.choice(ASPECTS)} of {topic} hears of"
        f" the {rng.choice(ASPECTS)} first."
        for number in range(RULES)
    )
    # What is different comes first, so that nothing is left of earlier rounds in any cache.
    return f"House {seed} guides guests through {topic}. {' '.join(rules)}"
