"""Autoscaling decisions: how many replicas a model needs, and when to change the number."""
