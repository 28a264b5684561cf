"""The config of State and Batches, as Serve hands it to both."""

import os

from pydantic import JsonValue

from deployments.process_setup import short_config_errors
from gateway.config.loader import parse_accounts, parse_state
from gateway.config.state import StateConfig
from gateway.store.opening import usable_state


def read_state_config(config: JsonValue, accounts: JsonValue) -> StateConfig:
    """`state` in the args of the gateway's application; `accounts`: what stands beside it, if any.

    Raises:
        ConfigError: it cannot be used here; Serve shows the message only.
    """
    with short_config_errors():
        known = None if accounts is None else parse_accounts(accounts)
        return usable_state(parse_state(config), known, os.environ)
