"""Routing: the fleet, the state of each replica, and the choice of a replica for each request."""
