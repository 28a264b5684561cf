"""Fetches the public keys of an identity provider, from a URL or a file, without blocking."""

import asyncio
import ssl
from pathlib import Path

import aiohttp

from gateway.authentication.key_set import KeySet
from gateway.config.jwt_issuer import JwtIssuer, is_url
from gateway.config.projects_file import projects_path

MAX_BYTES = 512 * 1024
TIMEOUT_S = 5.0


class KeysUnreachable(Exception):
    """The keys cannot be fetched; the message says why, for the log."""


async def fetch_keys(issuer: JwtIssuer) -> KeySet:
    """The keys of a provider as they are now.

    Raises:
        KeysUnreachable: they cannot be fetched, or are no keys.
    """
    try:
        if is_url(issuer.jwks):
            content = await _download(issuer)
        else:
            content = await asyncio.to_thread(_read, projects_path(issuer.jwks))
        return await asyncio.to_thread(KeySet.parse, content)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise KeysUnreachable(f"{type(error).__name__}: {error}") from None


async def _download(issuer: JwtIssuer) -> bytes:
    context = await asyncio.to_thread(ssl.create_default_context, cafile=issuer.jwks_ca_file)
    headers = {"accept": "application/json"}
    if issuer.jwks_token_file is not None:
        token = await asyncio.to_thread(_read, projects_path(issuer.jwks_token_file))
        headers["authorization"] = f"Bearer {token.decode().strip()}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.get(issuer.jwks, ssl=context, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError(f"{issuer.jwks} answered {response.status}")
        content = bytearray()
        async for part in response.content.iter_any():
            content += part
            if len(content) > MAX_BYTES:
                raise ValueError(f"{issuer.jwks} sent more than {MAX_BYTES} bytes")
        return bytes(content)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    return content
