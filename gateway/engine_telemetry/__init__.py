"""What runs inside an engine replica: it tracks requests, cache and load for the routers."""
