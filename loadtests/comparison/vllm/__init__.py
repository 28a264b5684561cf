"""Real vLLM on the CPU, beside Ray Serve LLM."""
