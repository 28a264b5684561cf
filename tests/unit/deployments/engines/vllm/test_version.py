"""Errors for versions of vLLM that the gateway does not support."""

import pytest

from deployments.engines.vllm.version import SUPPORTED, UnsupportedVersion, supported_version


def test_a_name_that_another_version_lacks_is_explained_by_the_version() -> None:
    """The error names the attribute, the installed version and the supported one."""
    with (
        pytest.raises(
            UnsupportedVersion, match=f"0.99.1 .* supports vLLM {SUPPORTED}: .*'generate'"
        ),
        supported_version("0.99.1"),
    ):
        object().generate  # type: ignore[attr-defined]  # noqa: B018 - it raises


@pytest.mark.parametrize("error", [AttributeError("a defect"), ImportError("a dependency")])
def test_errors_of_the_supported_version_are_not_explained_away(error: Exception) -> None:
    """Something else is wrong, and the message must not blame the version."""
    with pytest.raises(type(error), match=str(error)), supported_version(f"{SUPPORTED}.1"):
        raise error
