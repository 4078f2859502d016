"""The host whose queue core works on: this one, one that is reached over SSH, or one that is only observed.

Knows how each is asked for its Postfix instances and its queue; what is done to a queue, the queue helper there knows.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar import postfix
from sidecar.config import NOWHERE, Config, ConfigError, Mode
from sidecar.postfix import Instance, PostfixError
from sidecar.queue_client import OverSsh, QueueClient

KNOWN = "mail-host.json"
"""In store.path: what the host said of its instances last, for a start while it is away."""
WITHIN = 30.0
"""Seconds for the first answer of a host."""
_NEEDS_POLICY = ("route", "transport", "pool", "warm_up", "canary", "quota")
_SSH = (
    "ssh", "-T",
    "-o", "BatchMode=yes",  # nobody is there to be asked
    "-o", "StrictHostKeyChecking=yes",
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=5",  # a link that is cut is noticed within 15 s
    "-o", "ServerAliveCountMax=3",
    "-o", "LogLevel=ERROR",
)  # fmt: skip


def check(config: Config) -> None:
    """Raise ConfigError for settings that cannot go together with where the queue is."""
    reach = config.postfix.reach
    if not reach:
        return
    if not config.log.host:
        raise ConfigError("log.host: empty, with postfix.reach; wanted the host's name as its lines of the log have it")
    if reach == NOWHERE and config.mode is Mode.ACT:
        raise ConfigError(
            'postfix.reach: "nowhere" with mode = "act"; wanted mode = "observe", or where to reach the host'
        )
    if reach.startswith("-") or not reach.isprintable() or " " in reach:
        raise ConfigError(f"postfix.reach: found {reach!r}, wanted [USER@]HOST as ssh takes it")
    for name in (*_NEEDS_POLICY, "postfix.transport_table"):
        section, _, key = name.rpartition(".")
        if getattr(getattr(config, section) if section else config, key):
            raise ConfigError(
                f"{name}: set, with postfix.reach; it works where Postfix asks the policy service, on its host"
            )


def is_far(config: Config) -> bool:
    """Whether the queue is another host's that can be reached."""
    return bool(config.postfix.reach) and config.postfix.reach != NOWHERE


def command(config: Config) -> tuple[str, ...]:
    """Give the command that connects us with the host's gate; what it runs there is the key's forced command."""
    file = ("-F", config.postfix.ssh_config) if config.postfix.ssh_config else ()
    return (*_SSH, *file, "--", config.postfix.reach, "sidecar", "queue-gate")


def client(config: Config) -> QueueClient:
    return QueueClient(OverSsh(command(config), config.postfix.reach) if is_far(config) else config.helper_socket)


def instances(config: Config) -> tuple[Instance, ...]:
    """Ask for the Postfix instances, the primary one first. Raises PostfixError.

    A host that is away is as it last said; one that never said anything is not begun with, for what could be held there,
    and for how long, is not known.
    """
    if not config.postfix.reach:
        return tuple(postfix.instances(Path(config.postfix.config_directory)))
    if config.postfix.reach == NOWHERE:
        return (_OBSERVED,)
    known = Path(config.store.path) / KNOWN
    try:
        found = _asked(config)
    except PostfixError as error:
        try:
            return tuple(map(of_json, json.loads(known.read_text())))
        except (OSError, ValueError, KeyError, TypeError):
            raise error from None
    known.write_text(json.dumps([to_json(each) for each in found]))
    return found


def _asked(config: Config) -> tuple[Instance, ...]:
    where = config.postfix.reach
    try:
        said = subprocess.run(
            command(config), input=b'{"command": "instances"}\n', capture_output=True, timeout=WITHIN, check=False
        )
        answer: dict[str, Any] = (
            json.loads(said.stdout) if said.stdout else {"error": said.stderr.decode(errors="replace")}
        )
        if answer.get("ok"):
            return tuple(map(of_json, answer["instances"]))
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise PostfixError(f"{where}: {error}; is its key's forced command sidecar queue-gate?") from error
    raise PostfixError(f"{where}: {str(answer.get('error')).strip() or 'no answer'}; does ssh reach it?")


def to_json(instance: Instance) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in instance._asdict().items()}


def of_json(said: Mapping[str, Any]) -> Instance:
    """Read what `to_json` wrote, by this version or a newer one. Raises KeyError, TypeError, ValueError."""
    return Instance(
        name=str(said["name"]),
        syslog_name=str(said["syslog_name"]),
        config_directory=Path(said["config_directory"]),
        queue_directory=Path(said["queue_directory"]),
        data_directory=Path(said["data_directory"]),
        parameters={str(name): str(value) for name, value in said["parameters"].items()},
    )


_OBSERVED = Instance(
    "-",
    "postfix",
    Path("/etc/postfix"),
    Path("/var/spool/postfix"),
    Path("/var/lib/postfix"),
    {
        "maximal_queue_lifetime": "432000",
        "bounce_queue_lifetime": "432000",
        "relayhost": "",
        "sender_dependent_relayhost_maps": "",
        "address_verify_sender": "",
        "double_bounce_sender": "double-bounce",
        "mail_owner": "postfix",
    },
)
"""A host of which only the log is known: Postfix's defaults."""
