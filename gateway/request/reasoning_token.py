"""Reasoning as a token, for clients that send it back in place of the text.

It is the `encrypted_content` of responses, and the `signature` of thoughts that a message leaves
out. It hides nothing: whoever has it can read the text. It needs no store and no key.
"""

import base64
import binascii

PREFIX = "rt1_"


def make_token(reasoning: str) -> str:
    """A token that stands for a text of reasoning."""
    return PREFIX + base64.urlsafe_b64encode(reasoning.encode()).decode()


def open_token(token: object) -> str | None:
    """The text that a token stands for; None if it is none of ours."""
    if not isinstance(token, str) or not token.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(token.removeprefix(PREFIX), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
