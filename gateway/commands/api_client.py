"""HTTP client of commands: JSON, one request at a time, without anything that is slow to import."""

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.environment import ADMIN_KEY

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
UNKNOWN_URL = "unknown_url"

Json = dict[str, Any]  # what an API answers
Query = Mapping[str, str | int | Sequence[str]]


class ApiError(Exception):
    """The gateway refuses what was asked, or cannot be reached; `code`: of its error, if any."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return self.message


class ApiClient:
    """Asks one gateway; paths are below `root`. `key_name`: the variable that `key` comes from."""

    def __init__(
        self,
        url: str,
        key: str,
        root: str,
        timeout_s: float = TIMEOUT_S,
        key_name: str = ADMIN_KEY,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._root = root
        self._timeout_s = timeout_s
        self._key_name = key_name

    def ask(self, method: str, path: str, query: Query | None = None, body: object = None) -> Json:
        """The answer to one request.

        Raises:
            ApiError: there is none, or it is an error.
        """
        url = f"{self.url}{self._root}{path}"
        try:
            status, data = self._exchange(method, url, query or {}, body)
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{url}: cannot be reached: {str(error) or 'no answer'}") from None
        except ValueError as error:
            raise ApiError(f"{url}: its address or the key is no valid one: {error}") from None
        try:
            answer = json.loads(data)
        except ValueError:
            raise ApiError(f"{url}: answers with something else than JSON") from None
        if status != http.HTTPStatus.OK or not isinstance(answer, dict):
            raise self._error(url, status, answer)
        return answer

    def _exchange(self, method: str, url: str, query: Query, body: object) -> tuple[int, bytes]:
        """Send a request and read the answer; redirects are none: they must not get the key."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise OSError("its address must begin with http:// or https://")
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        if body is not None:
            headers["content-type"] = "application/json"
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=self._timeout_s)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=self._timeout_s)
        )
        written = "&".join(filter(None, [parts.query, urlencode(_pairs(query))]))
        path = parts.path + (f"?{written}" if written else "")
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    def _error(self, url: str, status: int, answer: object) -> ApiError:
        message, code = f"it answers {status}", ""
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            message = str(answer["error"].get("message", message))
            code = str(answer["error"].get("code") or "")
        if not self._key and (status == http.HTTPStatus.UNAUTHORIZED or code == UNKNOWN_URL):
            kind = "an admin key" if self._key_name == ADMIN_KEY else "a project's API key"
            message += f" (set {self._key_name} to {kind})"
        return ApiError(f"{url}: {message}", code)


def _pairs(query: Query) -> list[tuple[str, str]]:
    found = []
    for name, value in query.items():
        if isinstance(value, str | int):
            found.append((name, str(value)))
        else:
            found += [(f"{name}[]", each) for each in value]
    return found
