"""Routing: where each router sends requests, with simulated engines in real time."""
