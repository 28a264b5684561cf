"""Tests with real vLLM engines; a package, so that its gateway ends with its last test."""
