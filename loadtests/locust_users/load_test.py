"""State that all users of a locust test share, from its first tick to its results."""

import itertools
import logging
import random
import signal
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner
from rich.console import Console

from loadtests.loadgen.outcome import RequestOutcome, Status
from loadtests.locust_users.http_client import ChatClient
from loadtests.locust_users.models import (
    NothingToTest,
    Server,
    models_to_test,
    replicas,
    server_root,
)
from loadtests.locust_users.options import Setting, checked, team_keys, trace_replay, users_at
from loadtests.locust_users.plot import draw
from loadtests.locust_users.results import Observation, Results, remarks, table
from loadtests.workloads.conversations import MIXED, TEAMS, TRACE, WORKLOADS, Dialogue
from loadtests.workloads.replay import Replay
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import ConversationSource

DEFAULT_HOST = "http://127.0.0.1:8000"
OBSERVE_S = 2.0
"""Time between two reads of the server's `/v1/models`."""

log = logging.getLogger(__name__)


class RequestFailed(Exception):
    """A failure as locust counts it, by its message."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who sends requests: usually one, without a name."""

    name: str
    api_key: str
    models: Sequence[str]


class LoadTest:
    """One test at a time; with its web page, locust runs several one after the other."""

    def __init__(self) -> None:
        self.models: Sequence[str] = []
        self.replay: Replay
        self.outcomes: list[RequestOutcome] = []
        """Outcomes in the order in which requests ended."""
        self.stopping = Event()
        """Set when no more requests are to be sent."""
        self.is_over = False
        """Whether a trace has been sent and answered."""
        self.unsent = 0
        """Requests of a trace that are not sent yet."""
        self._environment: Environment
        self._options = Namespace()
        self._root = ""
        self._workload: ConversationSource
        self._turns: Iterator[Team]
        self._user_seeds = (str(number) for number in itertools.count())
        self._stopped_sending_s = 0.0
        self._setting: Setting | None = None
        """Setting of the running test."""
        self._observations: list[Observation] = []
        self._observer: gevent.Greenlet | None = None

    def attach(self, environment: Environment, **_: object) -> None:
        """Listen to locust's events.

        Raises:
            SystemExit: locust is to run several processes, whose outcomes would be lost in part:
                its workers report nothing more once they stop.
        """
        if not isinstance(environment.runner, LocalRunner):
            raise SystemExit("One process sends all the load: no --processes, --master, --worker.")
        environment.host = environment.host or DEFAULT_HOST
        self._environment = environment
        environment.events.test_stopping.add_listener(lambda **_: self.stop_sending())
        environment.events.test_stop.add_listener(self._finish)
        gevent.signal_handler(signal.SIGTERM, environment.runner.quit)  # locust's: with a page only

    def users(self) -> int | None:
        """Number of users wanted now; None if the test is over. The first call starts it."""
        try:
            setting = self._setting or self._start()
        except NothingToTest as error:
            log.error("no load: %s", error)  # noqa: TRY400 - it says all there is
            self._environment.process_exit_code = 2
            return None
        at_s = time.time() - setting.begun_s
        users = users_at(setting.shape, at_s, setting.run_time_s, setting.users)
        if users is None or self.is_over:
            return None
        return 1 if setting.is_trace else users

    @property
    def is_trace(self) -> bool:
        """Whether requests have times of their own."""
        return bool(self._setting and self._setting.is_trace)

    def next_team(self) -> Team:
        """The team of another user: they take turns."""
        return next(self._turns)

    def client(self, team: Team, concurrency: int = 1) -> ChatClient:
        """A user's client."""
        return ChatClient(self._root, self.record, team.api_key, concurrency, team.name)

    def dialogue(self, team: Team) -> Dialogue:
        """Conversations of another user."""
        seed = f"{self._setting.seed if self._setting else ''} {next(self._user_seeds)}"
        return Dialogue(self._workload, team.models, random.Random(seed))  # noqa: S311 - load

    def stop_sending(self) -> None:
        """Stop sending requests."""
        if not self.stopping.is_set():
            self._stopped_sending_s = time.time()
            self.stopping.set()

    def record(self, outcome: RequestOutcome) -> None:
        """Keep an outcome, and add it to locust's statistics.

        Of its times only E2E counts in locust's totals, or a request would count several times.
        """
        self.outcomes.append(outcome)
        if outcome.status is Status.CUT:
            return
        if outcome.status is Status.REJECTED:
            self._log("REJECTED", outcome, outcome.e2e_s * 1000)
            return
        self._environment.events.request.fire(
            request_type="E2E",
            name=outcome.model,
            response_time=outcome.e2e_s * 1000,
            response_length=0,
            exception=None if outcome.is_answered else RequestFailed(outcome.reason),
            context={},
        )
        if not outcome.is_answered:
            return
        for statistic, value in (("TTFT", outcome.ttft_s), ("ITL", outcome.itl_s)):
            if value is not None:
                self._log(statistic, outcome, value * 1000)
        self._log("TOK/S", outcome, outcome.tokens_per_s)
        self._log("CACHED", outcome, outcome.cached_tokens)

    def _log(self, statistic: str, outcome: RequestOutcome, value: float) -> None:
        entry = self._environment.stats.get(outcome.model, statistic)
        entry.log(value, 0)  # type: ignore[arg-type] # milliseconds need not be whole

    def _start(self) -> Setting:
        self._options = options = checked(self._environment.parsed_options or Namespace())
        self._root = server_root(self._environment.host or DEFAULT_HOST)
        names = [name for name in options.model.split(",") if name]
        keys = team_keys(options.teams) if options.workload == TEAMS else {"": options.api_key}
        servers = {team: Server(self._root, key) for team, key in keys.items()}
        found = {
            team: models_to_test(server, names, every=options.workload == MIXED)
            for team, server in servers.items()
        }
        teams = [Team(name, keys[name], [card.id for card in found[name]]) for name in keys]
        self._turns = itertools.cycle(teams)
        self.models = teams[0].models
        cards = [card for each in found.values() for card in each]
        sizes = Sizes.fitting(
            min((card.max_model_len for card in cards if card.max_model_len), default=None),
            most_tokens=options.max_prompt_tokens,
            scale=options.scale,
            think_scale=options.think_scale,
        )
        seed = options.seed or f"{random.SystemRandom().getrandbits(32):08x}"
        if options.workload == TRACE:
            self.replay = trace_replay(options.trace, options.trace_speed, sizes, seed)
        else:
            self._workload = WORKLOADS[options.workload](sizes, seed)
        self.outcomes.clear()
        self.stopping.clear()
        self.is_over, self.unsent, self._observations = False, 0, []
        self._user_seeds = (str(number) for number in itertools.count())
        self._environment.process_exit_code = None
        self._setting = Setting(
            workload=options.workload,
            shape=options.shape,
            users=options.num_users,
            run_time_s=float(options.run_time),
            scale=sizes.scale,
            think_scale=options.think_scale,
            trace=options.trace,
            trace_speed=options.trace_speed,
            seed=seed,
            host=self._root,
            begun_s=time.time(),
        )
        self._observer = gevent.spawn(self._observe, next(iter(servers.values())))
        return self._setting

    def _observe(self, server: Server) -> None:
        while True:
            try:
                found = replicas(server.models())
            except NothingToTest:
                found = {}
            runner = self._environment.runner
            users = runner.user_count if runner else 0
            self._observations.append(Observation(at_s=time.time(), users=users, replicas=found))
            gevent.sleep(OBSERVE_S)

    def _finish(self, **_: object) -> None:
        if self._observer:
            self._observer.kill()
        setting, self._setting = self._setting, None
        if setting is None:
            return
        results = Results.of(
            setting,
            self.outcomes,
            self._observations,
            stopped_sending_s=self._stopped_sending_s,
            unsent=self.unsent,
        )
        if not results.total.answered:
            self._environment.process_exit_code = 1
        self._report(results)

    def _report(self, results: Results) -> None:
        if self._options.results:
            path = Path(self._options.results)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
        if self._options.plot:
            path = Path(self._options.plot)
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path, results, self.outcomes)
        console = Console(width=140)
        console.print(table(results))
        for remark in remarks(results):
            console.print(remark, markup=False, soft_wrap=True)
