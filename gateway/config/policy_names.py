"""Names of the routing policies: those of the modules in `gateway/routing/policies`.

Only file names are read: configuration is the lower layer, and imports no policy.
"""

import pkgutil
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

DEFAULT_POLICY = "marginal"
_FOLDER = Path(__file__).parents[1] / "routing" / "policies"


def policy_names() -> list[str]:
    """Return the names of all policies: the default, then the others by name."""
    names = {module.name.replace("_", "-") for module in pkgutil.iter_modules([str(_FOLDER)])}
    return [DEFAULT_POLICY, *sorted(names - {DEFAULT_POLICY})]


def _check(name: str) -> str:
    known = policy_names()
    if name not in known:
        raise PydanticCustomError("unknown_name", "unknown name", {"known": known})
    return name


def _list_names(schema: dict[str, Any]) -> None:
    schema["enum"] = policy_names()


PolicyName = Annotated[str, AfterValidator(_check), Field(json_schema_extra=_list_names)]
"""Name of a routing policy."""
