"""A gateway on this machine, and the monitoring beside it."""
