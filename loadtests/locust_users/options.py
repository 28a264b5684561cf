"""Options of locust's command line and web page, and the shapes of load they offer."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors.startup import ConfigError
from loadtests.locust_users.models import NothingToTest
from loadtests.workloads.conversations import TRACE, WORKLOADS
from loadtests.workloads.replay import Replay
from loadtests.workloads.sizes import Sizes

if TYPE_CHECKING:  # importing locust patches the whole process
    from locust.argument_parser import LocustArgumentParser

USERS = 8
RUN_TIME_S = 60
API_KEY_VARIABLE = "OPENAI_API_KEY"
DEMO_TEAMS = "assistant=sk-demo-assistant,research=sk-demo-research,trial=sk-demo-trial"
"""Projects of configs/teams.yaml, and their keys, which are no secrets."""
STOP_TIMEOUT_S = 30.0
"""Answers in flight when the time is over may take this long."""
LOW_SHARE = 0.2
"""Users before and after a peak, of the peak's."""

SHAPES: Mapping[str, Callable[[float], float]] = {
    "steady": lambda _: 1.0,
    "ramp": lambda part: min(1.0, part / 0.75),
    "spike": lambda part: 1.0 if 0.4 <= part < 0.6 else LOW_SHARE,
    "diurnal": lambda part: LOW_SHARE + (1 - LOW_SHARE) * (1 - math.cos(2 * math.pi * part)) / 2,
}
"""Share of the peak's users at each part of the run time, both from 0 to 1."""


def users_at(shape: str, at_s: float, run_time_s: float, peak: int) -> int | None:
    """Users at a time of a test, at least one; None once it is over."""
    if at_s >= run_time_s:
        return None
    return max(1, round(peak * SHAPES[shape](at_s / run_time_s)))


class _Joined(argparse.Action):
    """A repeatable option, kept as one text with commas, as locust's web page has it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Append a value."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, ",".join(filter(None, [before, str(values)])))


def add_options(parser: "LocustArgumentParser") -> None:
    """Add our options to locust's own, and bound the defaults of those."""
    parser.set_defaults(num_users=USERS, run_time=RUN_TIME_S, stop_timeout=STOP_TIMEOUT_S)
    add = parser.add_argument
    add("--workload", choices=[*WORKLOADS, TRACE], default="chat", help="what is sent")
    add("--shape", choices=[*SHAPES], default="steady", help="number of users over time")
    add("--model", action=_Joined, default="", help="repeated or with commas; default: by probing")
    add("--seed", default="", help="of all that is sent; a new one each time if empty")
    add("--scale", type=float, default=0.0, help="of all lengths; 0 fits the model's context")
    add("--think-scale", type=float, default=0.1, help="of production's pauses between turns")
    add("--max-prompt-tokens", type=int, default=0, help="0 fits the model's context")
    add("--trace", default="", help="for the workload trace: a file in Mooncake's format")
    add("--trace-speed", type=float, default=1.0, help="2 replays a trace twice as fast")
    add("--teams", default=DEMO_TEAMS, help="for the workload teams: NAME=KEY, with commas")
    add("--api-key", default="", env_var=API_KEY_VARIABLE, is_secret=True, help="bearer token")
    hidden = {"metavar": "FILE", "include_in_web_ui": False}
    add("--results", default="", help="where to write figures, as JSON", **hidden)
    add("--plot", default="", help="where to draw a picture", **hidden)


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a test that its results keep: enough to repeat it."""

    workload: str
    shape: str
    users: int
    run_time_s: float
    scale: float
    think_scale: float
    trace: str
    """The trace's file, if there is one."""
    trace_speed: float
    seed: str
    host: str
    begun_s: float
    """Since the epoch."""

    @property
    def is_trace(self) -> bool:
        """Whether requests have times of their own."""
        return self.workload == TRACE

    @property
    def title(self) -> str:
        """The test in a few words; a trace has no users."""
        return (
            TRACE if self.is_trace else f"{self.workload}, {self.shape}, up to {self.users} users"
        )


def checked(parsed: argparse.Namespace) -> argparse.Namespace:
    """Options of the command line or of the web page, whose numbers do not pass the parser.

    Raises:
        NothingToTest: a value makes no test.
    """
    if parsed.num_users is None:
        parsed.num_users = USERS
    if parsed.run_time is None:
        parsed.run_time = RUN_TIME_S
    for name, may_be_zero in (
        *(("num_users", False), ("run_time", False), ("trace_speed", False)),
        *(("scale", True), ("think_scale", True), ("max_prompt_tokens", True)),
    ):
        value = getattr(parsed, name)
        if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
            option = "--" + name.removeprefix("num_").replace("_", "-")
            least = "0 or more" if may_be_zero else "more than 0"
            raise NothingToTest(f"{option} is {value:g}, and has to be {least}")
    return parsed


def team_keys(teams: str) -> dict[str, str]:
    """Keys of teams by name, of an option's value.

    Raises:
        NothingToTest: there are none.
    """
    found = dict(each.strip().partition("=")[::2] for each in teams.split(",") if each.strip())
    if not found or not all(found.values()):
        raise NothingToTest("--teams must be NAME=KEY, with commas between them")
    return found


def trace_replay(path: str, speed: float, sizes: Sizes, seed: str) -> Replay:
    """The trace to replay.

    Raises:
        NothingToTest: there is none, or it cannot be read.
    """
    if not path:
        raise NothingToTest("the workload trace needs a file: --trace FILE")
    try:
        return Replay.read(Path(path), speed, sizes, seed)
    except ConfigError as error:
        raise NothingToTest(str(error)) from None
