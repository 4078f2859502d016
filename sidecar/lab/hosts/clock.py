"""Hosts whose clock is wrong: what is started for them in another time, by libfaketime(1)."""

from collections.abc import Mapping
from pathlib import Path

from sidecar.lab.namespace import NamespaceError

_IMPORTED = "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME"
"""What Postfix takes over by itself (import_environment)."""


def in_another_time(ahead: float) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Give the command that starts another with a clock so many seconds `ahead`, and what main.cf needs for it.

    The clock that nobody sets stays right, as on a host whose time was set wrong. Raises NamespaceError.
    """
    variables = {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": f"{ahead:+g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKE_UTIME": "1",  # file times are of the same clock, set and read
    }
    command = ("env", *(f"{name}={value}" for name, value in variables.items()))
    return command, {"import_environment": f"{_IMPORTED} {' '.join(variables)}"}


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise NamespaceError("no libfaketime; apt-get install libfaketime")
    return found[0]
