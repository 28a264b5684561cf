"""What engines may fetch for requests that name images, audio or video by URL."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.config.references import Reference
from gateway.config.strict import Strict

_HOST = re.compile(r"(?!-)[a-z0-9-]+(\.[a-z0-9-]+)*|\d{1,3}(\.\d{1,3}){3}")


def _domain(value: str) -> str:
    if Reference.of(value):
        return value  # the engine checks what it stands for
    host, colon, port = value.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"should be a host name in lower case, without scheme or path, found {value!r};"
            " subdomains are listed one by one"
        )
    if colon and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"should end with a port from 1 to 65535, found {value!r}")
    return value


class MediaOptions(Strict):
    """Hosts from which a model's engines fetch media, and how much of it; by default from none."""

    domains: list[Annotated[str, AfterValidator(_domain)]] = Field(default_factory=list)
    """Hosts whose `http` and `https` URLs clients may use for images, audio and video, on standard
    ports; another port is named with its host, as in `media.example.com:8443`. Without hosts,
    clients send media in the request itself, as `data:` URLs."""
    max_mb: int = Field(default=32, ge=1)
    """Size of one file, in MB."""
    timeout_s: int = Field(default=10, ge=1)
    """Seconds in which one file must arrive."""

    @property
    def host_names(self) -> list[str]:
        """Hosts without their ports; a name that no host can have if there are none.

        An empty list would allow every host in vLLM.
        """
        return sorted({domain.partition(":")[0] for domain in self.domains}) or ["none.invalid"]
