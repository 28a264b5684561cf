"""The log of changes."""

import logging

import pytest

from deployments.change_log import ChangeLog


def test_only_changes_are_written(caplog: pytest.LogCaptureFixture) -> None:
    """A line is written when it differs from the last one about the same thing."""
    caplog.set_level(logging.INFO)
    log = ChangeLog(logging.getLogger("test"))
    for thing, line in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        log.record(thing, line)

    assert caplog.messages == ["a: x", "b: x", "a: y", "a: x"]


def test_the_end_of_a_trouble_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    """And only if there was a trouble; a thing that is forgotten starts anew."""
    caplog.set_level(logging.INFO)
    log = ChangeLog(logging.getLogger("test"))
    log.record_end("a", "over")
    log.record("a", "bad")
    log.record_end("a", "over")
    log.record_end("a", "over")
    log.record("b", "x")
    log.forget("b")
    log.record("b", "x")

    assert caplog.messages == ["a: bad", "a: over", "b: x", "b: x"]
