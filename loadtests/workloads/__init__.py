"""Workloads of load tests, drawn from a seed: conversations, and replays of traces."""
