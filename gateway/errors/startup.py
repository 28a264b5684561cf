"""Errors that never reach a client: they stop a start."""

from gateway.errors.gateway_error import GatewayError


class ConfigError(GatewayError):
    """The configuration is invalid; the message names the file, the line and the field."""

    code = "invalid_configuration"


class PlacementFailed(GatewayError):
    """Ray placed a replica's workers on nodes where they cannot work together."""

    code = "placement_failed"
