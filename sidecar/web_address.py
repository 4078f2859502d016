"""Where the web server listens, as the configuration says it: an address of this host and a port."""

import contextlib
import ipaddress

from sidecar.config import ConfigError


def address(listen: str, *, key: str = "web.listen") -> tuple[str, int]:
    """Read ADDRESS:PORT.

    Raises ConfigError. An empty address is refused: it would mean every interface, said by accident.
    """
    host, _, port = listen.rpartition(":")
    if port.isascii() and port.isdecimal() and int(port) <= 65535:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    raise ConfigError(f"{key}: found {listen!r}, wanted ADDRESS:PORT, as 127.0.0.1:8025 or [::1]:8025")
