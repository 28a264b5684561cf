"""Command line: `python -m deployments.local serve|stop`."""

from deployments.local.run import app

if __name__ == "__main__":
    app()
