"""Command line: `python -m deployments.local serve|stop`, which `gateway serve|stop` run."""

from deployments.local.run import app

if __name__ == "__main__":
    app()
