"""Our addresses and the lists that may name them: who lists what, how receivers judge each, which list is believed.

Knows which measures stand in a row; what they mean, the feeds say.
"""

import ipaddress
from typing import NamedTuple
from urllib.parse import quote

from policies.figures import Kind
from sidecar.page import measures
from sidecar.page.judgement import Told
from sidecar.page.listing import Slice, Wish, sliced
from sidecar.page.reading import Store
from sidecar.page.scene import Scene

_LISTED = "listed."


class Address(NamedTuple):
    name: str
    listed: list[Told]
    """On these lists."""
    asked: int
    """How many lists were asked and said something."""
    others: list[Told]
    """All else that is known of it."""

    @property
    def url(self) -> str:
        return f"/address/{quote(self.name, safe='')}"


class BlockList(NamedTuple):
    name: str
    health: Told | None
    told: int
    """Objects of which it said something the last time."""
    silent: int
    """Of which it did not."""
    listed: list[str]
    """What it names."""


class Addresses(NamedTuple):
    wish: Wish
    addresses: Slice[Address]
    lists: list[BlockList]


def view(scene: Scene) -> Addresses:
    outside = scene.stores.outside
    wish = Wish.read(scene.path, scene.query, (), filters=("q",))
    names = [name for name in measures.objects(outside, ["*"]) if _is_address(name) and wish.filter("q") in name]
    found = [_address(name, told) for name, told in measures.of_objects(outside, names).items()]
    found.sort(key=lambda each: (-len(each.listed), _order(each.name)))
    return Addresses(wish, sliced(found, wish), _lists(outside))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_network(name)
    except ValueError:
        return False
    return True


def _order(name: str) -> tuple[int, int]:
    network = ipaddress.ip_network(name)
    return network.version, int(network.network_address)


def _address(name: str, told: list[Told]) -> Address:
    lists = [each for each in told if each.known.measure.startswith(_LISTED)]
    listed = [each for each in lists if each.known.value]
    asked = sum(each.known.told_at > 0 for each in lists)
    return Address(name, listed, asked, [each for each in told if not each.known.measure.startswith(_LISTED)])


def _lists(outside: Store) -> list[BlockList]:
    """Lists that name something first, then those that are not believed."""
    named: dict[str, list[str]] = {}
    for measure, name in outside.rows(_NAMED):
        named.setdefault(measure.removeprefix(_LISTED), []).append(name)
    counted = {
        measure.removeprefix(_LISTED): (int(told), int(silent)) for measure, told, silent in outside.rows(_COUNTED)
    }
    names = {name for (name,) in outside.rows(_HEALTHY)}
    health = measures.of_objects(outside, names)
    found = []
    for name in sorted(names | counted.keys()):
        sound = next((each for each in health.get(name, ()) if each.known.measure == "zone-healthy"), None)
        found.append(BlockList(name, sound, *counted.get(name, (0, 0)), named.get(name, [])))
    return sorted(found, key=lambda each: (-len(each.listed), each.health is None or bool(each.health.known.value)))


KIND = Kind.ADDRESS
_NAMED = "SELECT measure, object FROM measure WHERE measure GLOB 'listed.*' AND value > 0 ORDER BY object"
_COUNTED = "SELECT measure, sum(outcome = 'ok'), sum(outcome != 'ok') FROM measure WHERE measure GLOB 'listed.*' GROUP BY measure"
_HEALTHY = "SELECT object FROM measure WHERE measure = 'zone-healthy'"
