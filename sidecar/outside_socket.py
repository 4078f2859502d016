"""Asking the outside process over its control socket, which is core's by another name."""

from typing import Any

from sidecar.config import Config
from sidecar.control import CoreUnreachable, ask_core


def ask_outside(config: Config, request: dict[str, Any]) -> dict[str, Any]:
    """Raises CoreUnreachable, in words about the outside process; CoreRefused."""
    try:
        return ask_core(config.outside_socket, request)
    except CoreUnreachable as error:
        said = str(error).replace("core does not run here", "the outside process does not run here")
        raise CoreUnreachable(said.replace("no answer from core", "no answer")) from error
