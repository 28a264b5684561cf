"""Targets for schedulers, made from a prompt alone."""

from gateway.kvcache.prefix import NO_PROMPT, Prompt
from gateway.request.head import RequestHead
from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.routing.fleet import ServedModel
from gateway.routing.target import Target

MODEL = ServedModel("m", created_s=0)


def target_of(
    prompt: Prompt = NO_PROMPT,
    *,
    model: ServedModel = MODEL,
    adapter: str = "",
    asked: str = "",
    max_tokens: int | None = None,
    sequences: int = 1,
    prompts_bytes: int = 0,
    request_id: str = "",
    session: bytes = b"",
    tenant: Tenant = ANONYMOUS,
    is_batch: bool = False,
    body: bytes = b"",
) -> Target:
    """A chat request with this prompt; `asked`: the model name that its client uses."""
    name = adapter or model.name
    head = RequestHead(
        asked or name, max_tokens=max_tokens, sequences=sequences, prompts_bytes=prompts_bytes
    )
    request = InferenceRequest(
        head=head,
        body=body,
        request_id=request_id.encode(),
        session=session,
        tenant=tenant,
        tier="flex" if is_batch else "default",
    )
    return Target(request, model, name, prompt)
