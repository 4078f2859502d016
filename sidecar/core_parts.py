"""The parts that core is built of, side by side: what its loops and its control commands are given."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parsers.log import LogReader
from policies.access import Access
from policies.engine import Engine
from policies.hygiene import Hygiene
from policies.steering import Steering
from policies.watching import Watching
from sidecar.config import Config
from sidecar.hands import Hands
from sidecar.ledger import Ledger
from sidecar.policyd import PolicyServer
from sidecar.postfix import Instance
from sidecar.quota import QuotaBook
from sidecar.store import Store
from sidecar.suppression import Suppression

if TYPE_CHECKING:  # a Redis client comes with it, which one host alone does not load
    from sidecar.fleet.commands import FleetCommands
    from sidecar.fleet.exchange import Exchange
    from sidecar.fleet.maps import SharedMaps
    from sidecar.fleet.quotas import SharedQuotas
    from sidecar.fleet.suppressions import SharedSuppressions
    from sidecar.fleet.warm_ups import SharedWarmUps


@dataclass(slots=True)
class Parts:
    """All but the first two stay the same objects as long as core runs."""

    config: Config
    """What is in force: a reload changes it."""
    instances: tuple[Instance, ...]
    """The primary one first."""
    engine: Engine
    reader: LogReader
    store: Store
    store_thread: ThreadPoolExecutor
    """The one thread that all SQL runs in."""
    ledger: Ledger
    hands: Hands
    access: Access
    policy: PolicyServer
    watching: Watching
    steering: Steering | None = None
    """None: it was not asked for where these parts were made."""
    suppression: Suppression | None = None
    """None: nobody is suppressed."""
    quotas: QuotaBook | None = None
    hygiene: Hygiene | None = None
    fleet: "Exchange | None" = None
    """None: this host shares nothing."""
    shared_suppressions: "SharedSuppressions | None" = None
    shared_quotas: "SharedQuotas | None" = None
    commands: "FleetCommands | None" = None
    shared_warm_ups: "SharedWarmUps | None" = None
    shared_maps: "SharedMaps | None" = None


@dataclass(slots=True)
class Lag:
    """How far behind the log we are."""

    log_time: float = 0.0
    """What time the last line says, 0 before the first."""
    read_at: float = 0.0
    """When it was read."""
    followed: bool = False
    """Whether it is settled from where on the log is read: a line that is written from now on is seen.

    Before that, at the first start, a line may be taken for one of the time before us.
    """

    @property
    def seconds(self) -> float:
        """Age of the last line when it was read; stamps of whole seconds count as late by one."""
        return max(0.0, self.read_at - self.log_time - 1.0) if self.log_time else 0.0
