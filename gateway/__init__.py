"""Plain Python parts of the gateway: no Ray, no vLLM, testable with nothing running."""
