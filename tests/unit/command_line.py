"""The whole command line, with all commands loaded."""

from gateway.cli import COMMANDS, build_app

app = build_app(COMMANDS)
