"""Tests with Ray and simulated engines."""
