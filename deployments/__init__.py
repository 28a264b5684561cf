"""The gateway as Ray Serve applications."""
