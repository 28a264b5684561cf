"""The HTTP surface: the ASGI application and all that imports FastAPI."""
