"""A simulated engine: OpenAI's chat and text completions without weights, on a clock."""
