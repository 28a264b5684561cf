"""vLLM as an engine: the only package that imports vLLM."""
