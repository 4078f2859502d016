"""All that a view is made of: what was read, what was asked for, and the moment. Knows nothing of its own."""

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.config import Config
from sidecar.page.picture import Picture
from sidecar.page.reading import Stores


class Scene(NamedTuple):
    config: Config
    stores: Stores
    picture: Picture
    path: str
    query: Mapping[str, str]
    about: str
    """What the path names: a domain, a sub-queue's key, an incident's number; "" for a view of everything."""
    now: float
