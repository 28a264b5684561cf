"""What locust's command line and its web page let one choose."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from loadtests.users.cards import Unusable
from loadtests.users.shapes import SHAPES
from loadtests.workloads.catalogue import MIXED, NAMES, TRACE

if TYPE_CHECKING:  # importing locust patches the whole process
    from locust.argument_parser import LocustArgumentParser

USERS = 8
RUN_TIME_S = 60
KEY = "OPENAI_API_KEY"
"""The variable that may hold the API key."""
STOP_TIMEOUT_S = 30.0
"""So long may answers that are on their way when the time is over go on."""


class _Joined(argparse.Action):
    """An option that may be repeated, kept as one text with commas, as locust's page has it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Join it to those before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, ",".join(filter(None, [before, str(values)])))


def add_options(parser: "LocustArgumentParser") -> None:
    """Add ours to locust's own, which get defaults that are bounded."""
    parser.set_defaults(num_users=USERS, run_time=RUN_TIME_S, stop_timeout=STOP_TIMEOUT_S)
    add = parser.add_argument
    add("--workload", choices=NAMES, default="chat", help="what is sent")
    add("--shape", choices=[*SHAPES], default="steady", help="how many users there are when")
    add(
        "--model", action=_Joined, default="", help="repeated or with commas; the server's if empty"
    )
    add("--seed", default="", help="of all that is sent; a new one each time if empty")
    add("--scale", type=float, default=0.0, help="of all lengths; 0 fits the model's context")
    add("--think-scale", type=float, default=0.1, help="of production's pauses between turns")
    add("--max-prompt-tokens", type=int, default=0, help="0 fits the model's context")
    add("--trace", default="", help="for the workload trace: a file in Mooncake's format")
    add("--trace-speed", type=float, default=1.0, help="2 sends a trace twice as fast")
    add("--api-key", default="", env_var=KEY, is_secret=True, help="sent as bearer token")
    unseen = {"metavar": "FILE", "include_in_web_ui": False}
    add("--results", default="", help="where to write figures, as JSON", **unseen)
    add("--plot", default="", help="where to draw a picture", **unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was chosen.

    Raises:
        Unusable: there can be no test of it.
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
        """The page's numbers do not pass the parser, so they are checked here."""
        above = {
            "--users": self.users,
            "--run-time": self.run_time_s,
            "--trace-speed": self.trace_speed,
        }
        at_least = {
            "--scale": self.scale,
            "--think-scale": self.think_scale,
            "--max-prompt-tokens": self.max_prompt_tokens,
        }
        for option, value in (above | at_least).items():
            if not math.isfinite(value) or value < 0 or (option in above and value == 0):
                least = "more than 0" if option in above else "0 or more"
                raise Unusable(f"{option} is {value:g}, and has to be {least}")

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Self:
        """What the command line, or the page, says."""
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
            trace=_path(parsed.trace),
            trace_speed=parsed.trace_speed,
            api_key=parsed.api_key,
            results=_path(parsed.results),
            plot=_path(parsed.plot),
        )

    @property
    def is_mixed(self) -> bool:
        """Whether all models are asked."""
        return self.workload == MIXED

    @property
    def is_trace(self) -> bool:
        """Whether requests have times of their own."""
        return self.workload == TRACE


def _path(text: str) -> Path | None:
    return Path(text) if text else None
