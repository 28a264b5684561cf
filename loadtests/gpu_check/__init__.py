"""One command for whoever has GPUs: what cannot be tried without, and a report to attach."""
