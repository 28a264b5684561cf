"""Fixtures of the unit tests, for tests that need Ray or vLLM."""

from tests.unit.conftest import clock, start_engine, upstream

__all__ = ["clock", "start_engine", "upstream"]
