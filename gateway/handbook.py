"""The reference of all that a configuration may say, written from the models that check it."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.gateway import GatewayConfig
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry

Schema = Mapping[str, Any]

INTRODUCTION = """\
# What a configuration may say

<!-- Written by `gateway docs > docs/models.md`: do not edit. -->

A gateway is deployed from one YAML file, [Ray Serve's config](https://docs.ray.io/en/latest/serve/production-guide/config.html).
In it every model is an application whose `args` are a [model entry](#model-entry), and the gateway
is one whose Router has the [gateway config](#gateway-config) as its `user_config`:

```yaml
{file}
```

`gateway check FILE` validates a file without starting anything: a field that is not named here, a
value out of its range or a name that leads nowhere is one line with the file, the line, the place
and what is wrong. `serve deploy FILE` brings an edited file into effect: an entry that has changed
replaces the engines of that model, a gateway config that has changed restarts nothing.

A wrong gateway config that is deployed unchecked does no harm: the routers stay with the one
before, also those that start meanwhile, write the lines to their log and show them to operators at
`GET /gateway/config` (`serve status` does not show them). Only where there is none before does the
gateway not start; then `serve status` says why. Models come and go while the gateway runs, so that
it takes names that lead nowhere: a request for one goes to its fallbacks or is answered with 404.
What aliases, splits and fallbacks do: [Names](names.md).
"""

FILE = """\
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
    deployments:
      - name: Router
        num_replicas: 2
        user_config:
          aliases:
            gpt-4o-mini: qwen3-8b
  - name: qwen3-8b
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: qwen3-8b
      engine: vllm
      source: Qwen/Qwen3-8B"""

EXAMPLES = {
    "VllmEntry": """\
name: qwen3-8b
engine: vllm
source: Qwen/Qwen3-8B
max_model_len: 32768
autoscaling: {min: 0, max: 16}
parallelism: {tensor: 2}
accelerator: H100
adapters:
  - {name: qwen3-8b-legal, source: adapters/legal}
engine_args:
  max_num_seqs: 256""",
    "SimEntry": """\
name: rehearsal
engine: sim
replicas: 4
simulation: {step_s: 0.025, kv_tokens: 131072}""",
    "GatewayConfig": """\
aliases:
  gpt-4o-mini: chat
splits:
  chat:
    models: {qwen3-8b: 90, qwen3-8b-v2: 10}
    shadow: {model: qwen3-8b-v3, fraction: 0.05}
fallbacks:
  qwen3-235b: [qwen3-8b]
  qwen3-8b-v2: [qwen3-8b]
admin_key: env:GATEWAY_ADMIN_KEY""",
}
"""Of a section: what could stand there as a whole."""

_PLAIN = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
_SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def handbook() -> str:
    """The whole reference, in Markdown."""
    vllm, sim = VllmEntry.model_fields, SimEntry.model_fields
    shared = [name for name in vllm if name in sim and repr(vllm[name]) == repr(sim[name])]
    parts = [
        INTRODUCTION.format(file=FILE),
        "## Model entry\n\nHow to run a model, and how requests reach it.\n",
        _table(VllmEntry, shared.__contains__),
        "### With `engine: vllm`\n",
        *_section(VllmEntry, lambda name: name not in shared),
        "### With `engine: sim`\n",
        *_section(SimEntry, lambda name: name not in shared),
        *_nested(VllmEntry, SimEntry),
        "## Gateway config\n",
        *_section(GatewayConfig),
        *_nested(GatewayConfig),
    ]
    return "\n".join(parts)


def _section(
    model: type[BaseModel], is_meant: Callable[[str], bool] = lambda _: True
) -> Iterator[str]:
    """What a model is, what it may look like, and its fields."""
    paragraphs = (model.__doc__ or "").split("\n\n")
    yield "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"
    if example := EXAMPLES.get(model.__name__):
        yield f"```yaml\n{example}\n```\n"
    yield _table(model, is_meant)


def _nested(*models: type[BaseModel]) -> Iterator[str]:
    """A section for everything that the fields of these models are made of."""
    found: dict[str, type[BaseModel]] = {}
    todo = [*reversed(models)]
    while todo:
        model = todo.pop()
        inner = [each for field in model.model_fields.values() for each in _models_in(field)]
        todo.extend(reversed([each for each in inner if each.__name__ not in found]))
        found.update((each.__name__, each) for each in inner)
    for name, model in found.items():
        yield f"### {name}\n"
        yield from _section(model)


def _models_in(field: FieldInfo) -> Iterator[type[BaseModel]]:
    todo = [field.annotation]
    while todo:
        each: Any = todo.pop(0)
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each
        todo.extend(getattr(each, "__args__", ()))


def _table(model: type[BaseModel], is_meant: Callable[[str], bool]) -> str:
    types = model.model_json_schema(ref_template="{model}")["properties"]
    fields = {name: field for name, field in model.model_fields.items() if is_meant(name)}
    rows = [
        f"| `{name}` | {_kind(types[name])} | {_default(fields[name])} | {_meaning(fields[name])} |"
        for name in sorted(fields, key=lambda name: not fields[name].is_required())
    ]
    return "\n".join(
        ["| field | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    )


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if default is None:
        return "unset"
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return f"`{kind}`" if kind else "its defaults"
    return "none" if default in ({}, []) else f"`{json.dumps(default)}`".replace('"', "")


def _kind(schema: Schema) -> str:
    """What a value may be."""
    match schema:
        case {"anyOf": members} | {"oneOf": members}:
            kinds = [_kind(each) for each in members if each != {"type": "null"}]
            text = " or ".join(dict.fromkeys(kinds))
        case {"$ref": "JsonValue"}:
            text = "any value"
        case {"$ref": name}:
            text = f"[{name}](#{name.lower()})"
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"const": value}:
            text = f"`{value}`"
        case _:
            text = _plain_kind(schema)
    return text


def _plain_kind(schema: Schema) -> str:
    match schema["type"]:
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "object":
            return f"mapping of text to {_kind(schema['additionalProperties'])}"
    return _PLAIN[schema["type"]] + _range(schema)


def _range(schema: Schema) -> str:
    bounds = [f"{sign} {schema[limit]:g}" for limit, sign in _SIGNS.items() if limit in schema]
    return f" {', '.join(bounds)}" if bounds else ""
