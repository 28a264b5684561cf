"""Projects files for tests, and keys to their projects."""

import hashlib
import json
from pathlib import Path

KEY = "sk-0123456789abcdefghijklmnopqrstuvwxyz"
OTHER_KEY = "sk-zyxwvutsrqponmlkjihgfedcba9876543210"
ADMIN_KEY = "sk-administrators-only-0123456789abcdef"


def hash_of(key: str) -> str:
    """The hash of a key, as a projects file has it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def project(name: str = "search", *keys: str, **fields: object) -> dict[str, object]:
    """A project with keys."""
    return {"name": name, "keys": [{"hash": hash_of(key)} for key in keys], **fields}


def write_projects(path: Path, *projects: object, admin_keys: tuple[str, ...] = ()) -> str:
    """Write a projects file; returns its path."""
    admins = [{"hash": hash_of(key)} for key in admin_keys]
    path.write_text(json.dumps({"projects": projects, "admin_keys": admins}))
    return str(path)


def bearer(key: str = KEY) -> dict[str, str]:
    """Headers with a key."""
    return {"authorization": f"Bearer {key}"}
