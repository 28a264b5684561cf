"""Which models a client may use; to others it must look as if they did not exist.

A project or key that may use an alias or a split may use what that leads to. It may ask by any
alias or split that leads only to models that it may use.
"""

from gateway.config.model_names import ModelNames, ModelRoute
from gateway.errors.request import ModelNotFound
from gateway.identity.client import ClientIdentity


def may_use(identity: ClientIdentity, name: str, names: ModelNames) -> bool:
    """Whether a client may use a model, adapter, alias or split."""
    return _allows(identity.project.models, name, names) and _allows(identity.models, name, names)


def allowed_route(identity: ClientIdentity, name: str, key: bytes, names: ModelNames) -> ModelRoute:
    """The route of a requested name, without fallbacks that the client may not use.

    Raises:
        ModelNotFound: it may not use the name at all.
    """
    if identity.project.models is None and identity.models is None:
        return names.route(name, key)
    if not may_use(identity, name, names):
        raise ModelNotFound(name)
    route = names.route(name, key)
    first, *fallbacks = route.models
    allowed = (model for model in fallbacks if may_use(identity, model, names))
    return ModelRoute((first, *allowed), route.shadow)


def _allows(models: tuple[str, ...] | None, name: str, names: ModelNames) -> bool:
    if models is None or name in models:
        return True
    allowed, targets = names.with_targets(models), names.leads_to(name)
    return name in allowed or (bool(targets) and targets <= allowed)
