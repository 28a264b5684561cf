"""Whether a request is taken, and when its replica starts it."""
