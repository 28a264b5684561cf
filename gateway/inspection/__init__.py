"""What routers tell operators: each of itself, and all of them together."""
