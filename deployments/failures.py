"""Why an engine did not start, from what Serve says of its deployment."""

import re

LENGTH_LIMIT = 400
"""Characters of an error that are told."""

_FRAME = re.compile(r'^ {2}File "', re.MULTILINE)
_ERROR = re.compile(r"^(?:\w+\.)*\w+: ")


def start_failure(message: str) -> str:
    """The error with which the last replica failed to start, without traceback; else empty.

    `message` is Serve's for a deployment: it ends with the traceback that the replica raised.
    """
    if "failed to start" not in message:
        return ""
    _, _, error = message.partition("Error:\n")
    frames = list(_FRAME.finditer(error))
    lines = error[frames[-1].start() :].splitlines()[1:] if frames else error.splitlines()
    while lines and lines[0].startswith("    "):
        lines.pop(0)  # the code of the last frame
    text = " ".join(" ".join(lines).split())
    return _ERROR.sub("", text)[:LENGTH_LIMIT]
