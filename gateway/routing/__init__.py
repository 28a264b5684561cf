"""Replica selection: the fleet, the state of each replica, and the routing policies."""
