"""Locust users that speak OpenAI's API: `locust -f loadtests/locustfile.py --workload chat`."""

from typing import ClassVar

from locust import LoadTestShape, User, events

from loadtests.locust_users.load_test import LoadTest
from loadtests.locust_users.options import add_options
from loadtests.locust_users.users import ConversationUser, ReplayUser

SPAWN_S = 5.0
"""Time until all users of a steady test have started."""
MAX_SPAWN_RATE = 100.0

TEST = LoadTest()  # locust finds classes and makes users by itself: shared state has to be here

events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(TEST.attach)


class ChatUser(ConversationUser):
    """User of all workloads but the trace."""

    test = TEST


class TraceUser(ReplayUser):
    """The only user of the trace."""

    test = TEST


class Shape(LoadTestShape):
    """Number of users over time, by the chosen shape."""

    use_common_options = True
    test: ClassVar[LoadTest] = TEST

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Users, their spawn rate and class; None at the end."""
        users = self.test.users()
        if users is None:
            return None
        rate = min(MAX_SPAWN_RATE, max(1.0, users / SPAWN_S))
        return users, rate, [TraceUser if self.test.is_trace else ChatUser]
