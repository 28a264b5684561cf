"""Options of locust's command line and web page, and the shapes of load they offer."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from loadtests.locust_users.models import NothingToTest
from loadtests.workloads.conversations import MIXED, TRACE, WORKLOADS

if TYPE_CHECKING:  # importing locust patches the whole process
    from locust.argument_parser import LocustArgumentParser

USERS = 8
RUN_TIME_S = 60
API_KEY_VARIABLE = "OPENAI_API_KEY"
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
    add("--api-key", default="", env_var=API_KEY_VARIABLE, is_secret=True, help="bearer token")
    hidden = {"metavar": "FILE", "include_in_web_ui": False}
    add("--results", default="", help="where to write figures, as JSON", **hidden)
    add("--plot", default="", help="where to draw a picture", **hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parsed options.

    Raises:
        NothingToTest: a value makes no test.
    """

    workload: str
    shape: str
    users: int
    run_time_s: float
    models: tuple[str, ...]
    seed: str
    scale: float
    think_scale: float
    max_prompt_tokens: int
    trace: Path | None
    trace_speed: float
    api_key: str
    results: Path | None
    plot: Path | None

    def __post_init__(self) -> None:
        """Check numbers: those of the web page do not pass the parser."""
        for option, value, may_be_zero in (
            ("--users", self.users, False),
            ("--run-time", self.run_time_s, False),
            ("--trace-speed", self.trace_speed, False),
            ("--scale", self.scale, True),
            ("--think-scale", self.think_scale, True),
            ("--max-prompt-tokens", self.max_prompt_tokens, True),
        ):
            if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                least = "0 or more" if may_be_zero else "more than 0"
                raise NothingToTest(f"{option} is {value:g}, and has to be {least}")

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Self:
        """The options of the command line, or of the web page."""
        return cls(
            workload=parsed.workload,
            shape=parsed.shape,
            users=USERS if parsed.num_users is None else parsed.num_users,
            run_time_s=float(RUN_TIME_S if parsed.run_time is None else parsed.run_time),
            models=tuple(name for name in parsed.model.split(",") if name),
            seed=parsed.seed,
            scale=parsed.scale,
            think_scale=parsed.think_scale,
            max_prompt_tokens=parsed.max_prompt_tokens,
            trace=Path(parsed.trace) if parsed.trace else None,
            trace_speed=parsed.trace_speed,
            api_key=parsed.api_key,
            results=Path(parsed.results) if parsed.results else None,
            plot=Path(parsed.plot) if parsed.plot else None,
        )

    @property
    def is_mixed(self) -> bool:
        """Whether all models are asked."""
        return self.workload == MIXED

    @property
    def is_trace(self) -> bool:
        """Whether requests have times of their own."""
        return self.workload == TRACE
