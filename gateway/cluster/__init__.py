"""Cluster planning: placement of replicas, shortages, rollovers, and the plan of a file."""
