"""Limits of projects: requests and tokens a minute, requests at a time, money a day or month."""
