"""Discrete-event simulation of the gateway in front of simulated engines."""
