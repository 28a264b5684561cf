"""Validates the arguments of models as their engines would, without starting one.

    python -m deployments.engines.vllm.check < requests.json

Reads a list of requests, and prints a list with the mistake in each, empty where there is none. It
runs in a process of its own: importing vLLM takes seconds and changes much.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from pydantic import JsonValue, ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from gateway.config.engine_check import CHECKS, EngineCheck
from gateway.errors.startup import ConfigError

MAX_LENGTH = 300
"""Characters of a mistake that are printed: some list all models that vLLM knows."""


def mistake(request: EngineCheck) -> str:
    """Mistake that vLLM finds in the arguments of one model; empty if there is none."""
    try:
        args = parse_arguments({**DEFAULTS, **request.arguments})
        if request.on_cpu == bool(current_platform.is_cpu()):
            _check_model(args, request.arguments)
    except ConfigError as error:
        return error.message
    except ValidationError as error:  # its own text shows the input
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(each["msg"].removeprefix("Value error, ") for each in details)
    except Exception as error:  # noqa: BLE001 - vLLM's configuration may raise anything
        return f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else ""
    return ""


def _check_model(args: argparse.Namespace, arguments: Mapping[str, JsonValue]) -> None:
    """Have vLLM read the configuration of a model on this machine: nothing is downloaded."""
    model = arguments.get("model")
    if isinstance(model, str) and Path(model).is_dir():
        AsyncEngineArgs.from_cli_args(args).create_model_config()


def main() -> None:
    """Answer the requests of standard input."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
    requests = CHECKS.validate_json(sys.stdin.buffer.read())
    mistakes = [" ".join(mistake(request).split())[:MAX_LENGTH] for request in requests]
    sys.stdout.write(f"\n{msgspec.json.encode(mistakes).decode()}\n")


if __name__ == "__main__":
    main()
