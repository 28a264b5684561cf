"""Fields of the Responses API that do not work here."""

import pytest

from deployments.engines.vllm.api.refused_request import RefusedRequest
from deployments.engines.vllm.api.responses_fields import check_fields


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"previous_response_id": "r"}, "previous_response_id", "previous_response_not_found"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"include": ["x"]}, "include[0]", "invalid_value"),
        ({"service_tier": "bogus"}, "service_tier", "invalid_value"),
        ({"truncation": "bogus"}, "truncation", "invalid_value"),
        ({"reasoning": {"effort": "bogus"}}, "reasoning.effort", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"text": {"format": {"type": "bogus"}}}, "text.format.type", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
    ],
)
def test_fields_that_would_be_ignored_are_refused(
    fields: dict[str, object], param: str, code: str
) -> None:
    """Each in OpenAI's words."""
    with pytest.raises(RefusedRequest) as refused:
        check_fields(fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_fields_that_ask_for_nothing_pass() -> None:
    """Such as a background that is off, and what OpenAI's SDKs and agents send."""
    check_fields(
        {
            "background": False,
            "modalities": ["text"],
            "n": 1,
            "store": True,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"summary": "auto", "effort": None},
        }
    )
