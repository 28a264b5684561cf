"""Prefix keys of prompts, and which replica's KV cache holds which keys."""
