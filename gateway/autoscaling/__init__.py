"""Autoscaling: how many replicas a model needs, and when to change their number."""
