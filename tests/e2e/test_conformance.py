"""OpenAI's and Anthropic's APIs to the letter: the table of requests, and mutated requests."""

import pytest
from _pytest.mark import ParameterSet

from conformance.clients.mutated_requests import faults
from conformance.requests_table import TableCase, table_cases
from tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.e2e

CASES = table_cases()
MUTATED, SEED = 100, 16


def parameter(case: TableCase) -> ParameterSet:
    """A case as pytest's parameter; a known deviation is a failure that is expected."""
    marks = [pytest.mark.xfail(reason=case.known)] if case.known else []
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [parameter(case) for case in CASES])
def test_a_request_is_answered_to_the_letter(gateway: GatewayProcess, case: TableCase) -> None:
    """Its answer has the status, the strict shape and the values that the table says."""
    assert case.deviations(gateway.url) == []


def test_mutated_requests_are_the_client_s_error(gateway: GatewayProcess) -> None:
    """None of them is answered 5xx, and each error has the shape of its API."""
    assert [
        fault for of_path in faults(gateway.url, MUTATED, SEED).values() for fault in of_path
    ] == []
