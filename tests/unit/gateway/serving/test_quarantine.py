"""The quarantine of requests that may have halted or killed engines."""

import msgspec

from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.serving.quarantine import MAX_REQUESTS, QUARANTINE_S, Quarantine
from tests.unit.conftest import Clock


def request(body: bytes = b"{}", client: bytes = b"a", path: str = "/v1/x") -> InferenceRequest:
    """A request of a client."""
    head = RequestHead("m")
    return InferenceRequest(head=head, path=path, body=body, tenant=Tenant(client))


def test_the_same_request_of_the_same_client_is_found(clock: Clock) -> None:
    """Not another one, nor that of another client, nor one to another route."""
    quarantine = Quarantine(clock)
    assert quarantine.find(request()) is None
    quarantine.add(request(), None)
    again = msgspec.structs.replace(request(), request_id=b"another")
    assert quarantine.find(again) is not None
    others = [request(b"{ }"), request(client=b"b"), request(path="/v1/y")]
    assert [quarantine.find(other) for other in others] == [None] * 3


def test_a_request_is_forgotten_in_time(clock: Clock) -> None:
    """A client that was merely unlucky is not refused for long; a repeat prolongs it."""
    quarantine = Quarantine(clock)
    quarantine.add(request(), None)
    quarantine.add(request(b"other"), None)
    clock.now_s += QUARANTINE_S / 2
    quarantine.add(request(), None)
    clock.now_s += QUARANTINE_S / 2
    assert quarantine.find(request(b"other")) is None
    assert quarantine.find(request()) is not None
    clock.now_s += QUARANTINE_S / 2
    assert quarantine.find(request()) is None


def test_only_the_latest_requests_are_remembered(clock: Clock) -> None:
    """However many there are, memory is bounded."""
    quarantine = Quarantine(clock)
    for number in range(MAX_REQUESTS + 1):
        quarantine.add(request(b"%d" % number), None)
    assert quarantine.find(request(b"0")) is None
    assert quarantine.find(request(b"1")) is not None
