"""A running gateway for the commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.administered import administered_gateway


@pytest.fixture
def gateway_url(tmp_path: Path) -> Iterator[str]:
    """Address of a gateway without projects."""
    with administered_gateway(f"sqlite:///{tmp_path}/accounts.db") as url:
        yield url
