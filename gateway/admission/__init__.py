"""Admission control: whether a request is accepted, and when it is sent to its replica."""
