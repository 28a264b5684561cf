"""Simulated replicas: the model of a vLLM engine, and the lab that compares routing policies."""
