"""A test from its first tick to its results."""

import logging
import signal
import time
from argparse import Namespace

import gevent
import msgspec
from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner
from rich.console import Console

from loadtests.users.cards import Server, Unusable, replicas, root
from loadtests.users.exchange import Exchange
from loadtests.users.load import Found, Load
from loadtests.users.options import Options
from loadtests.users.picture import draw
from loadtests.users.recorder import Recorder
from loadtests.users.results import Look, Results, Setting
from loadtests.users.shapes import users_at
from loadtests.users.table import remarks, table

HOST = "http://127.0.0.1:8000"
"""Where no other is given."""
LOOK_S = 2.0
"""Between one look at the server's models and the next."""

log = logging.getLogger(__name__)


class LoadTest:
    """What all users share: what they send, and where they note what came of it.

    Locust runs several tests one after the other where its page is used.
    """

    def __init__(self) -> None:
        self.load: Load
        self.recorder: Recorder
        self.stopping = Event()
        """Set when nothing more is to be sent."""
        self.is_over = False
        """Whether there was an end to what was to be sent, and it has come."""
        self.unsent = 0
        """Requests of a trace that are not sent yet."""
        self._environment: Environment
        self._options: Options
        self._sent_until_s = 0.0
        self._setting: Setting | None = None
        """Of the test that is running."""
        self._looks: list[Look] = []
        self._watch: gevent.Greenlet | None = None

    def attach(self, environment: Environment, **_: object) -> None:
        """Take part in what happens in locust.

        Raises:
            SystemExit: it is to be several processes; what they measure would be lost in part, as
                locust's workers tell nothing more once they are told to stop.
        """
        if not isinstance(environment.runner, LocalRunner):
            raise SystemExit("One process sends all the load: no --processes, --master, --worker.")
        environment.host = environment.host or HOST
        self._environment = environment
        self.recorder = Recorder(environment)
        environment.events.test_stopping.add_listener(lambda **_: self.end_sending())
        environment.events.test_stop.add_listener(self._finish)
        gevent.signal_handler(signal.SIGTERM, environment.runner.quit)  # locust's: with a page only

    def users(self) -> int | None:
        """How many there should be now; none if the test is over. The first call begins it."""
        try:
            setting = self._setting or self._begin()
        except Unusable as error:
            log.error("no load: %s", error)  # noqa: TRY400 - it says all there is
            self._environment.process_exit_code = 2
            return None
        options = self._options
        at_s = time.time() - setting.begun_s
        wanted = users_at(options.shape, at_s, options.run_time_s, options.users)
        if wanted is None or self.is_over:
            return None
        return 1 if options.is_trace else wanted

    @property
    def is_trace(self) -> bool:
        """Whether requests have times of their own."""
        return self._options.is_trace

    def exchange(self, concurrency: int = 1) -> Exchange:
        """A user's way to the server."""
        return Exchange(self._host, self.recorder.note, self.load.api_key, concurrency)

    def end_sending(self) -> None:
        """Nothing more is sent."""
        if not self.stopping.is_set():
            self._sent_until_s = time.time()
            self.stopping.set()

    def _begin(self) -> Setting:
        options = Options.of(self._environment.parsed_options or Namespace())
        self._host = host = root(self._environment.host or HOST)
        server = Server(host, options.api_key)
        found = Found.at(server, options)
        self.load = Load(options, found)
        self.recorder.clear()
        self.stopping.clear()
        self.is_over = False
        self.unsent = 0
        self._looks = []
        self._environment.process_exit_code = None
        self._options = options
        self._setting = Setting(
            workload=options.workload,
            shape=options.shape,
            users=options.users,
            run_time_s=options.run_time_s,
            scale=self.load.sizes.scale,
            think_scale=options.think_scale,
            trace=str(options.trace or ""),
            trace_speed=options.trace_speed,
            seed=found.seed,
            host=host,
            begun_s=time.time(),
        )
        self._watch = gevent.spawn(self._look_on, server)
        return self._setting

    def _look_on(self, server: Server) -> None:
        while True:
            try:
                found = replicas(server.cards())
            except Unusable:
                found = {}
            runner = self._environment.runner
            users = runner.user_count if runner else 0
            self._looks.append(Look(at_s=time.time(), users=users, replicas=found))
            gevent.sleep(LOOK_S)

    def _finish(self, **_: object) -> None:
        if self._watch:
            self._watch.kill()
        setting, self._setting = self._setting, None
        if setting:
            results = Results.of(
                setting,
                self.recorder.outcomes,
                self._looks,
                sent_until_s=self._sent_until_s,
                unsent=self.unsent,
            )
            if not results.total.answered:
                self._environment.process_exit_code = 1
            self._tell(results)

    def _tell(self, results: Results) -> None:
        options = self._options
        if options.results:
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
        if options.plot:
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            draw(options.plot, results, self.recorder.outcomes)
        console = Console(width=140)
        console.print(table(results))
        for remark in remarks(results):
            console.print(remark, markup=False, soft_wrap=True)
