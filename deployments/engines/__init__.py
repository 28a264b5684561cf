"""Engines that can run behind the gateway, and the HTTP server in front of one."""
