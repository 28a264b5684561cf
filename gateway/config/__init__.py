"""Deployment file: model entries, the gateway config, and their validation."""
