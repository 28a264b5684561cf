"""What the users of one test send."""

import itertools
import random
from collections.abc import Sequence

import msgspec

from gateway.errors import ConfigError
from loadtests.users.cards import Server, Unusable, chosen, context_tokens
from loadtests.users.options import Options
from loadtests.workloads.catalogue import WORKLOADS
from loadtests.workloads.dialogue import Dialogue
from loadtests.workloads.replay import Replay
from loadtests.workloads.sizes import Sizes


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is settled before a test begins."""

    seed: str
    models: Sequence[str]
    context_tokens: int | None
    """The shortest of the models', where it is known."""

    @classmethod
    def at(cls, server: Server, options: Options) -> "Found":
        """Ask the server for what the options leave open.

        Raises:
            Unusable: it has nothing to send load to.
        """
        cards = chosen(server, options.models, options.is_mixed)
        return cls(
            seed=options.seed or f"{random.SystemRandom().getrandbits(32):08x}",
            models=[card.id for card in cards],
            context_tokens=context_tokens(cards),
        )


class Load:
    """Dialogues for users that wait for their answers, or a trace for one that does not.

    Raises:
        Unusable: the trace cannot be read.
    """

    def __init__(self, options: Options, found: Found) -> None:
        self.api_key = options.api_key
        self._found = found
        self._names = (f"{found.seed} {number}" for number in itertools.count())
        self.sizes = Sizes.fitting(
            found.context_tokens,
            most_tokens=options.max_prompt_tokens,
            scale=options.scale,
            think_scale=options.think_scale,
        )
        if options.is_trace:
            self.replay = _replay(options, self.sizes, found.seed)
        else:
            self._workload = WORKLOADS[options.workload](self.sizes, found.seed)

    @property
    def model(self) -> str:
        """Whom a trace is sent to."""
        return self._found.models[0]

    def dialogue(self) -> Dialogue:
        """Another user's."""
        rng = random.Random(next(self._names))  # noqa: S311 - load, not secrets
        return Dialogue(self._workload, self._found.models, rng)


def _replay(options: Options, sizes: Sizes, seed: str) -> Replay:
    if options.trace is None:
        raise Unusable("the workload trace needs a file: --trace FILE")
    try:
        return Replay.read(options.trace, options.trace_speed, sizes, seed)
    except ConfigError as error:
        raise Unusable(str(error)) from None
