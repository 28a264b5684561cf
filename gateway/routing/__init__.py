"""Who can take a request, and who should."""
