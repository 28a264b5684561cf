"""Tests of the gateway and of its load tests."""
