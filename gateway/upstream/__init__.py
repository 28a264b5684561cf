"""HTTP to engines: connections, requests, responses and their events."""
