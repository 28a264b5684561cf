"""Files that only their owner may read: configs with secrets, and the token of Ray clusters."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from gateway.environment import AUTH_TOKEN, AUTH_TOKEN_PATH
from gateway.proxy_key import DEFAULT_TOKEN_PATH

TOKEN_BYTES = 32
"""As Ray makes its own tokens."""


def write_private(file: Path, text: str) -> None:
    """Write a file with mode 0600, whatever the umask; one that exists gets that mode, too."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, 0o600)
        out.write(text)


def ensure_token(environ: Mapping[str, str], home: Path | None = None) -> None:
    """Make the token by which this user's Ray clusters know their processes, if there is none.

    Ray would make it as well, but readable for every user of the machine. One that Ray has made is
    closed to others. A token that is set in the environment is left to its owner.
    """
    if environ.get(AUTH_TOKEN) or environ.get(AUTH_TOKEN_PATH):
        return
    file = (Path.home() if home is None else home) / DEFAULT_TOKEN_PATH
    if file.exists():
        if file.stat().st_uid == os.getuid():
            file.chmod(0o600)
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, secrets.token_hex(TOKEN_BYTES))
