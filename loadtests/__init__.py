"""Load tests and benchmarks of the gateway; nothing here is part of the product."""
