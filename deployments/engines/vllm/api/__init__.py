"""vLLM's HTTP routes in the words of OpenAI's and Anthropic's APIs."""
