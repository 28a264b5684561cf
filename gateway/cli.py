"""The `gateway` command: which commands there are, and where each is.

Only the module of the command that is asked for is imported. All others are known by their names
and a line of help, so that `gateway status` answers within half a second, and completion as well.
"""

import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

COMPLETED = ("_TYPER_COMPLETE_ARGS", "COMP_WORDS")
"""Variables in which shells hand over the line that is to be completed."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command, or group of commands."""

    place: str
    """Module and attribute: a function, or a `typer.Typer`."""
    help: str
    """The first sentence of its help."""


COMMANDS: Mapping[str, Command] = {
    "serve": Command(
        "gateway.commands.serve:serve",
        "Run a gateway until Ctrl-C: start Ray or join a cluster, deploy FILE, and say what"
        " happens.",
    ),
    "stop": Command(
        "gateway.commands.serve:stop",
        "Stop the gateways that this user has started here, and what a crash has left of one.",
    ),
    "status": Command(
        "gateway.commands.status:status",
        "Show how the models of a running gateway stand, and why one is not ready.",
    ),
    "top": Command(
        "gateway.commands.top:top",
        "Show all models and replicas of a running gateway, every second.",
    ),
    "logs": Command(
        "gateway.commands.logs:logs",
        "Show one request: where it went and why, how it ended, and its line in the request log.",
    ),
    "check": Command(
        "gateway.commands.check:check",
        "Validate a deployment file and print what it would run, without starting anything.",
    ),
    "doctor": Command(
        "gateway.commands.doctor:doctor",
        "Look at every node of the running cluster, or at this machine, and say what is wrong.",
    ),
    "env": Command(
        "gateway.commands.env:env",
        'Print the variables to set before Ray starts, for `eval "$(gateway env)"`.',
    ),
    "projects": Command("gateway.commands.projects:app", "Projects of a running gateway."),
    "keys": Command("gateway.commands.keys:app", "API keys."),
    "usage": Command("gateway.commands.usage:usage", "Print what projects have used."),
    "costs": Command("gateway.commands.usage:costs", "Print what projects have spent."),
    "batches": Command(
        "gateway.commands.batches:batches",
        "Print a project's batches, the newest first, or cancel one.",
    ),
    "simulate": Command(
        "gateway.simulation.command:command",
        "Compare routing policies on a workload: the gateway's own code with simulated engines.",
    ),
    "docs": Command(
        "gateway.commands.docs:docs",
        "Print reference tables as Markdown, or bring pages up to date with them.",
    ),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ray-llm-gateway {version('ray-llm-gateway')}")
        raise typer.Exit


def main(
    *,
    version_: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """An OpenAI-compatible gateway in front of many vLLM models on Ray Serve."""


def build_app(loaded: Collection[str]) -> typer.Typer:
    """The command line, of which the commands in `loaded` work and the others only have a name."""
    built = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    built.callback()(main)
    for name, command in COMMANDS.items():
        found = _load(command.place) if name in loaded else _placeholder
        if isinstance(found, typer.Typer):
            built.add_typer(found, name=name)
        else:
            help_ = None if name in loaded else command.help
            built.command(name, help=help_)(found)
    return built


def asked_for(arguments: Collection[str], environ: Mapping[str, str]) -> str:
    """The command that is run or completed; empty if there is none yet."""
    line = next((environ[name].split()[1:] for name in COMPLETED if name in environ), arguments)
    return next((word for word in line if not word.startswith("-")), "")


def app() -> None:
    """Run the command line of this process."""
    build_app({asked_for(sys.argv[1:], os.environ)})(prog_name="gateway")


def _placeholder() -> None:
    """Stand for a command that is not asked for."""


def _load(place: str) -> Callable[..., None] | typer.Typer:
    module, _, attribute = place.partition(":")
    found: Callable[..., None] | typer.Typer = getattr(import_module(module), attribute)
    return found


if __name__ == "__main__":
    app()
