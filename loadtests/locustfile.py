"""Locust users that speak OpenAI's API: `locust -f loadtests/locustfile.py --workload chat`."""

from typing import ClassVar

from locust import LoadTestShape, User, events

from loadtests.users.load_test import LoadTest
from loadtests.users.options import add_options
from loadtests.users.replayer import Replayer
from loadtests.users.talker import Talker

SPAWN_S = 5.0
"""So long it takes until all users of a steady test are there."""
MOST_SPAWNED_PER_S = 100.0

TEST = LoadTest()  # locust finds classes and makes users by itself: what they share has to be here

events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(TEST.attach)


class Conversing(Talker):
    """Of all workloads but the trace."""

    test = TEST


class Replaying(Replayer):
    """Of the trace."""

    test = TEST


class Shape(LoadTestShape):
    """As many users as the chosen shape wants."""

    use_common_options = True
    test: ClassVar[LoadTest] = TEST

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Users, how many come a second, and their class; none at the end."""
        users = self.test.users()
        if users is None:
            return None
        rate = min(MOST_SPAWNED_PER_S, max(1.0, users / SPAWN_S))
        return users, rate, [Replaying if self.test.is_trace else Conversing]
