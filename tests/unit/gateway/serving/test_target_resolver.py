"""Resolver of models: what a request becomes for the one that answers it."""

import json

from gateway.identity.cache_scope import ScopeSeeds
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.identity.project import Project
from gateway.request.inference_request import InferenceRequest
from gateway.request.routes import CHAT, parse_head
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.serving.target_resolver import TargetResolver
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata

FACTS = EngineFacts(
    engine="fake", routes=(CHAT,), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=9999
)


def keys(resolver: TargetResolver, identity: ClientIdentity) -> list[int]:
    """Prefix keys of one prompt, sent by this client."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 2000}]})
    head = parse_head(CHAT, body.encode(), b"")
    request = InferenceRequest(head=head, body=body.encode(), identity=identity)
    return list(resolver.target(request, "m").prompt.keys)


def test_prefix_keys_are_those_of_the_client_s_scope() -> None:
    """Two projects share none, unless their scope does; an open gateway's are those of all."""
    fleet = Fleet()
    fleet.add(ServedModel("m", created_s=0))
    metadata = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)
    fleet.replace_replicas(fleet.model("m"), [Replica("r", metadata)])
    resolver, other = (TargetResolver(fleet, ScopeSeeds(b"key")) for _ in range(2))

    def of(project: str, cache_scope: str = "project", key: str = "") -> list[int]:
        found = Project(id=project, cache_scope=cache_scope)
        return keys(resolver, ClientIdentity(project=found, key=key))

    assert of("p") == of("p", key="k") == keys(other, ClientIdentity(project=Project(id="p")))
    assert of("p", "group:g") == of("q", "group:g")
    assert of("p", "all") == of("q", "all") == keys(resolver, ANONYMOUS_IDENTITY)
    scopes = [of("p"), of("q"), of("p", "group:g"), of("p", "all"), of("p", "key", "k")]
    assert len({key for each in scopes for key in each}) == sum(map(len, scopes))
