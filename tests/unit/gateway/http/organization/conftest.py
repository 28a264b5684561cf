"""The admin API over a database, called by OpenAI's own client."""

from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from gateway.http.organization.app import Administration
from gateway.store.database import Database
from gateway.store.organization import Organization
from tests.unit.gateway.http.organization.admin_api import NOW_S, AdminApi
from tests.unit.gateway.store.conftest import database, database_url, postgres

__all__ = ["database", "database_url", "postgres"]


@pytest.fixture
def api(database: Database) -> AdminApi:
    """The admin API at a fixed time, asked by an admin key."""
    organization = Organization(database, lambda: NOW_S)
    return AdminApi(Administration(organization), database)


@pytest.fixture
async def client(api: AdminApi) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client for it."""
    transport = httpx2.ASGITransport(api.app)
    async with (
        httpx2.AsyncClient(transport=transport) as http_client,
        openai.AsyncOpenAI(
            admin_api_key="sk-admin-test",
            base_url="http://gateway/v1",
            http_client=http_client,
            max_retries=0,
        ) as found,
    ):
        yield found
