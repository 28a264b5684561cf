"""All reference tables by name, and the pages in docs/ that they are filled into.

A page marks the place of a table, whose text between the marks is generated:

    <!-- table: metrics buckets -->
    ...
    <!-- end of table -->
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

from gateway.reference.config_tables import config_tables
from gateway.reference.environment_tables import environment_tables
from gateway.reference.error_tables import error_tables
from gateway.reference.header_tables import header_tables
from gateway.reference.metrics_tables import metrics_tables

MARK = re.compile(r"<!-- table: (\w+) ([\w ]+) -->\n.*?<!-- end of table -->", re.DOTALL)


class Topic(StrEnum):
    """What a group of tables is about."""

    CONFIG = "config"
    METRICS = "metrics"
    ENVIRONMENT = "environment"
    HEADERS = "headers"
    ERRORS = "errors"


TABLES: Mapping[Topic, Callable[[], dict[str, str]]] = {
    Topic.CONFIG: config_tables,
    Topic.METRICS: metrics_tables,
    Topic.ENVIRONMENT: environment_tables,
    Topic.HEADERS: header_tables,
    Topic.ERRORS: error_tables,
}


def printed(topic: Topic) -> str:
    """All tables of a topic, each below its name."""
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in TABLES[topic]().items()) + "\n"


def filled(page: str) -> str:
    """The page with its tables as they are now.

    Raises:
        ValueError, KeyError: it marks a table that does not exist.
    """

    def fill(mark: re.Match[str]) -> str:
        topic, name = mark.groups()
        text = TABLES[Topic(topic)]()[name]
        return f"<!-- table: {topic} {name} -->\n\n{text}\n\n<!-- end of table -->"

    return MARK.sub(fill, page)


def marked(page: str) -> list[tuple[str, str]]:
    """The tables that a page marks: topic and name."""
    return [(topic, name) for topic, name in MARK.findall(page)]
