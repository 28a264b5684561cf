"""OpenAI's and Anthropic's APIs to the letter: the table of requests, and mutated requests."""

import pytest

from conformance.clients.mutated_requests import faults
from conformance.requests_table import TableCase, table_cases
from tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.e2e

CASES = table_cases()
MUTATED, SEED = 100, 16


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_request_is_answered_to_the_letter(gateway: GatewayProcess, case: TableCase) -> None:
    """Its answer has the status, the strict shape and the values that the table says."""
    assert case.deviations(gateway.url) == []


def test_mutated_requests_are_the_client_s_error(gateway: GatewayProcess) -> None:
    """None of them is answered 5xx, and each error has the shape of its API."""
    assert [
        fault for of_path in faults(gateway.url, MUTATED, SEED).values() for fault in of_path
    ] == []
