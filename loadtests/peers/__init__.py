"""Other gateways, started in front of given engines and stopped reliably."""
