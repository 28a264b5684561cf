"""Agents at work: call a tool, read the result, go on; short answers, long shared context."""

import random
from dataclasses import dataclass

import msgspec

from gateway.simulation.trace import BLOCK_TOKENS
from gateway.simulation.workloads import TOOL_USE
from loadtests.workloads.history import History
from loadtests.workloads.prose import novel, prose
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Function, Message, Session, ToolCall

KINDS = 4
INSTRUCTION_BLOCKS = 8
"""What an agent is and which tools it has: 4k tokens."""
TASK = (1500.0, 0.6, 8000)
TURNS = (5, 25)
TOOLS = ("read_file", "search", "run_command", "edit_file")


@dataclass(frozen=True, slots=True)
class Agents:
    """Loops of tool calls; agents of one kind share their instructions, as a system prompt."""

    sizes: Sizes
    seed: str

    def session(self, rng: random.Random) -> Session:
        """One task, from its wording to its last step."""
        sizes = self.sizes
        kind = rng.randrange(KINDS)
        shared_tokens = sizes.shared_tokens(INSTRUCTION_BLOCKS * BLOCK_TOKENS)
        instructions = Message("system", prose(f"{self.seed} agent {kind}", shared_tokens))
        history = History(sizes, instructions)
        history.add(Message("user", novel(rng, sizes.tokens(rng, TASK))))
        for _ in range(rng.randint(*TURNS)):
            answer_tokens = sizes.answer_tokens(rng, TOOL_USE.answer)
            pause_s = sizes.pause_s(rng, TOOL_USE.mean_pause_s, TOOL_USE.least_pause_s)
            said = yield history.turn(answer_tokens, pause_s)
            call = _call(rng)
            history.add(Message("assistant", said, (call,)))
            result_tokens = sizes.tokens(rng, TOOL_USE.addition)
            if result_tokens > history.room_tokens:
                return
            history.add(Message("tool", novel(rng, result_tokens), tool_call_id=call.id))


def _call(rng: random.Random) -> ToolCall:
    arguments = msgspec.json.encode({"about": novel(rng, 8)}).decode()
    return ToolCall(f"call_{rng.getrandbits(48):012x}", Function(rng.choice(TOOLS), arguments))
