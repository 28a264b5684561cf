"""Other gateways, each in a module: started in front of given engines, stopped for certain."""
