"""Bytes from an engine to a client."""
