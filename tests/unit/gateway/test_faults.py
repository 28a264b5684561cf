"""Faults: counted by their labels, and logged with their request and replica."""

import logging

import pytest

from gateway.faults import Action, Fault, Faults
from tests.unit.recorder import KeptRecorder

RESET = Fault("m", "broke_off", Action.RETRIED)


def test_faults_are_counted_by_their_labels() -> None:
    """Each kind of fault has its own count, and its own metric."""
    recorder = KeptRecorder()
    faults = Faults(recorder)
    shed = Fault("m", "overloaded", Action.SHED)
    for fault in (RESET, shed, RESET):
        faults.record(fault, message="it did")
    assert faults.counts == [(RESET, 2), (shed, 1)]
    assert recorder.counts == {
        ("gateway_faults", ("m", "broke_off", "retried")): 2,
        ("gateway_faults", ("m", "overloaded", "shed")): 1,
    }


def test_a_fault_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """The line names request, model, replica, reason and action."""
    with caplog.at_level(logging.WARNING):
        Faults().record(RESET, request_id="r1", replica="x#2", message="It broke off.")
    assert caplog.messages == [
        "request r1: model m: replica x#2: broke_off (It broke off.): retried"
    ]
