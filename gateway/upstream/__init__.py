"""HTTP client for engines: connections, requests, responses and event streams."""
