"""Resuming a broken stream on another replica."""
