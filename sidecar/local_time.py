"""The zone of this host's clock, which classic log stamps are in."""

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

_LOCALTIME = Path("/etc/localtime")


def local_zone() -> tzinfo:
    """Give the zone with its summer time, not today's offset; UTC where the host names none."""
    try:
        with _LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC
