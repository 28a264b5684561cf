"""Keys as they are created: the only answers with a secret."""

from typing import Literal

from pydantic import BaseModel, field_validator

from gateway.config.project_values import Text
from gateway.http.organization.values import LifetimeS, Params, Texts
from gateway.store.api_keys import ApiKeyRow, KeyParams


class KeyCreation(Params):
    """Body that creates a key."""

    name: Text = "Secret Key"
    expires_in_seconds: LifetimeS | None = None
    scopes: Texts | None = None
    models: Texts | None = None
    """Models and adapters that it may use, of those of the project; null: all of them."""

    @field_validator("scopes")
    @classmethod
    def _has_no_scopes(cls, scopes: list[str] | None) -> list[str] | None:
        return no_scopes(scopes)

    @property
    def key(self) -> KeyParams:
        """The key to be created."""
        return KeyParams(
            name=self.name,
            expires_in_s=self.expires_in_seconds,
            models=None if self.models is None else tuple(self.models),
        )


def no_scopes(scopes: list[str] | None) -> list[str] | None:
    """Refuse scopes, which would promise what the gateway does not hold."""
    if scopes:
        raise ValueError(
            "is not supported: a key is restricted by its `models` and its project's `routes`"
        )
    return scopes


class NewKeyObject(BaseModel):
    """A key that has just been created, with its secret."""

    id: str
    object: Literal["organization.project.service_account.api_key"] = (
        "organization.project.service_account.api_key"
    )
    name: str
    created_at: int
    expires_at: int | None
    value: str
    models: list[str] | None

    @classmethod
    def of(cls, row: ApiKeyRow, secret: str) -> "NewKeyObject":
        """A row as the API shows it once."""
        return cls(
            id=row.id,
            name=row.name,
            created_at=row.created_s,
            expires_at=row.expires_s,
            value=secret,
            models=None if row.models is None else list(row.models),
        )
