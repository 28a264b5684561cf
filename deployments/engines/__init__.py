"""What can run behind the gateway."""
