"""Locust users that speak OpenAI's API, their measurements and the report."""
