"""Suites of checks, each run with the clients that it is about."""
