"""Locust users that speak OpenAI's API, what they measure and how it is reported."""
