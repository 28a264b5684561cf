"""What a configuration may say: how to run each model, and the gateway's own settings."""
