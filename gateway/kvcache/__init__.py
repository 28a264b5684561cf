"""Prefix keys, and which replica's KV cache holds which of them."""
