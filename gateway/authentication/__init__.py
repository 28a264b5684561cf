"""Authentication: who a client is, by its API key, before anything of its body is read."""
