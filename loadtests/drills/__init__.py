"""Drills of a cluster's high availability: machines, and what runs on them, lost under load."""
