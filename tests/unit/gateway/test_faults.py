"""Faults: counted by their labels, logged with whom they concern."""

import logging

import pytest

from gateway.faults import Action, Fault, Faults
from tests.unit.recorder import KeptRecorder

RESET = Fault("m", "broke_off", Action.RETRIED)


def test_faults_are_counted_by_their_labels() -> None:
    """Each distinct fault has a count of its own, also as a metric."""
    recorder = KeptRecorder()
    faults = Faults(recorder)
    shed = Fault("m", "overloaded", Action.SHED)
    for fault in (RESET, shed, RESET):
        faults.note(fault, why="it did")
    assert faults.counts == [(RESET, 2), (shed, 1)]
    assert recorder.counts == {
        ("gateway_faults", ("m", "broke_off", "retried")): 2,
        ("gateway_faults", ("m", "overloaded", "shed")): 1,
    }


def test_a_log_line_says_who_and_what(caplog: pytest.LogCaptureFixture) -> None:
    """An operator reads request, model, replica, reason and what was done on one line."""
    with caplog.at_level(logging.WARNING):
        Faults().note(RESET, request_id="r1", replica="x#2", why="It broke off.")
    assert caplog.messages == [
        "request r1: model m: replica x#2: broke_off (It broke off.): retried"
    ]
