"""How well the gateway keeps to OpenAI's and Anthropic's APIs, measured with their own clients."""
