"""Comparisons with other gateways; `loadtests.compare` is their command."""
