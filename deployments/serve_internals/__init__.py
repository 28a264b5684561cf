"""Everything that depends on internals of Ray Serve, Ray or uvicorn."""
