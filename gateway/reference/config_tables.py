"""Tables of all configuration fields, generated from the models that validate them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.accounts import AccountsConfig
from gateway.config.gateway import GatewayConfig
from gateway.config.projects import Projects
from gateway.config.sim import SimEntry
from gateway.config.state import StateConfig
from gateway.config.vllm import VllmEntry
from gateway.reference.markdown import code, table

Schema = Mapping[str, Any]

MODEL_ENTRY = "model entry"
"""The fields that all engines share."""

_PLAIN = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
_SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def config_tables() -> dict[str, str]:
    """A table for each part of a configuration, by the part's name."""
    vllm, sim = VllmEntry.model_fields, SimEntry.model_fields
    shared = [name for name in vllm if name in sim and repr(vllm[name]) == repr(sim[name])]
    return {
        MODEL_ENTRY: _fields(VllmEntry, shared.__contains__),
        VllmEntry.__name__: _fields(VllmEntry, lambda name: name not in shared),
        SimEntry.__name__: _fields(SimEntry, lambda name: name not in shared),
        GatewayConfig.__name__: _fields(GatewayConfig),
        Projects.__name__: _fields(Projects),
        AccountsConfig.__name__: _fields(AccountsConfig),
        StateConfig.__name__: _fields(StateConfig),
        **{
            each.__name__: _fields(each)
            for each in _nested(
                VllmEntry, SimEntry, GatewayConfig, Projects, AccountsConfig, StateConfig
            )
        },
    }


def _nested(*models: type[BaseModel]) -> Iterable[type[BaseModel]]:
    """Everything that the fields of these models are made of."""
    found: dict[str, type[BaseModel]] = {}
    todo = [*reversed(models)]
    while todo:
        model = todo.pop()
        inner = [each for field in model.model_fields.values() for each in _models_in(field)]
        todo.extend(reversed([each for each in inner if each.__name__ not in found]))
        found.update((each.__name__, each) for each in inner)
    return found.values()


def _models_in(field: FieldInfo) -> Iterator[type[BaseModel]]:
    todo = [field.annotation]
    while todo:
        each: Any = todo.pop(0)
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each
        todo.extend(getattr(each, "__args__", ()))


def _fields(model: type[BaseModel], is_meant: Callable[[str], bool] = lambda _: True) -> str:
    types = model.model_json_schema(ref_template="{model}")["properties"]
    fields = {
        field.alias or name: field for name, field in model.model_fields.items() if is_meant(name)
    }
    rows = [
        (code(name), _kind(types[name]), _default(fields[name]), fields[name].description or "")
        for name in sorted(fields, key=lambda name: not fields[name].is_required())
    ]
    return table(("field", "value", "default", "meaning"), rows)


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
