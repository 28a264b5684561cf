"""Gathers the facts for `gateway doctor`: one short-lived probe on each node of a cluster."""
