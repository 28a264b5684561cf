"""Routing policies: pure functions of a request and its candidate replicas."""
