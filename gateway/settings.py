"""The environment, read once."""

from collections.abc import Mapping

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process's environment says about how Ray Serve runs."""

    has_haproxy: bool
    """Serve puts HAProxy in front of the routers."""
    is_throughput_optimized: bool
    """Serve runs its own parts and ours on one event loop."""
    is_hardened: bool
    """That HAProxy was started by `gateway-haproxy`, which says who the client is."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`."""
        binary = environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")
        return cls(
            has_haproxy=environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1",
            is_throughput_optimized=environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == "1",
            is_hardened=binary.endswith("gateway-haproxy"),
        )

    @property
    def names_clients(self) -> bool:
        """Whether `x-forwarded-for` is the proxy's word, and not the client's own."""
        return self.has_haproxy and self.is_hardened

    @property
    def missing(self) -> list[str]:
        """The variables without which the gateway works, but several times slower."""
        wanted = {
            "RAY_SERVE_ENABLE_HA_PROXY": self.has_haproxy,
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": self.is_throughput_optimized,
        }
        return [name for name, is_set in wanted.items() if not is_set]
