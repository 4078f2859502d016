"""Taking messages out of the queue and giving them back: the steps, and the order that keeps them safe.

Intent goes to the record before Postfix is asked; a message that is still being delivered does not go
back. Whether the queue manager still has one in memory is not to be seen here: that is the caller's proof.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sidecar import postfix, queue_files
from sidecar.held_record import HeldRecord, Op, RecordError
from sidecar.postfix import Instance, PostfixError
from sidecar.queue_files import HeldFile

_LOG = logging.getLogger("sidecar")

ADOPTED_WITHIN = 600.0
"""Seconds in which a message that we answered HOLD must have come to the hold queue."""

_REPEATED = ("always_bcc", "sender_bcc_maps", "recipient_bcc_maps", "content_filter")
"""Settings that a requeue would apply a second time."""


class HoldResult(NamedTuple):
    held: tuple[str, ...]
    """On hold now, by us."""
    missing: tuple[str, ...]
    """Not found, half-received, or on hold by somebody else."""


class ReleaseResult(NamedTuple):
    released: tuple[str, ...]
    missing: tuple[str, ...]
    """Not on hold (any longer)."""
    busy: tuple[str, ...]
    """Still on hold: a delivery agent has them open."""


class RequeueRefused(Exception):  # noqa: N818  # named for what it is: an answer, not a fault
    """This instance must not requeue: it would repeat what it does to new mail."""


def take(instance: Instance, keys: Mapping[str, str], *, record: HeldRecord, now: float) -> HoldResult:
    """Put queued messages (id -> key) on hold, ours from now on.

    One that is on hold already is ours only if the record says so. Raises RecordError (then nothing is
    held) and PostfixError (then the record names more than is held: `reconcile` puts that right).
    """
    with queue_files.as_owner(instance):
        there = {one for one in keys if queue_files.look(instance, one) is not HeldFile.MISSING}
    live = record.live
    wanted = {one: key for one, key in keys.items() if one not in there}
    record.append_each(Op.HOLD, instance.syslog_name, wanted, now=now)
    placed = set(postfix.hold(instance, list(wanted))) if wanted else set()
    missed = {one: key for one, key in wanted.items() if one not in placed}
    record.append_each(Op.MISSING, instance.syslog_name, missed, now=now)
    ours = placed | {one for one in there if (instance.syslog_name, one) in live}
    return HoldResult(tuple(one for one in keys if one in ours), tuple(one for one in keys if one not in ours))


def give_back(
    instance: Instance,
    ids: Sequence[str],
    *,
    key: str,
    record: HeldRecord | None,
    now: float,
    spread: float = 0.0,
    delay: float = 0.0,
) -> ReleaseResult:
    """Release held messages, the i-th due `delay + i * spread / len(ids)` seconds from now; no kick.

    Without a record, or where it cannot be written, they are released all the same. Raises PostfixError.
    """
    found: dict[str, HeldFile] = {}
    with queue_files.as_owner(instance):
        for i, one in enumerate(ids):
            found[one] = queue_files.prepare(instance, one, due=now + delay + i * spread / len(ids))
    ready = [one for one in ids if found[one] is HeldFile.READY]
    for one in ids:
        if found[one] is HeldFile.FOREIGN:
            _LOG.warning("hold/%s of %s is no queue file of Postfix's; left alone", one, instance.syslog_name)
    let_go = set(postfix.release(instance, ready)) if ready else set()
    gone = [
        one for one in ids if found[one] is HeldFile.MISSING or (found[one] is HeldFile.READY and one not in let_go)
    ]
    _write(record, Op.RELEASE, instance, [one for one in ids if one in let_go], key=key, now=now)
    _write(record, Op.GONE, instance, gone, key=key, now=now)
    return ReleaseResult(
        tuple(one for one in ids if one in let_go),
        tuple(one for one in ids if one not in let_go and found[one] is not HeldFile.BUSY),
        tuple(one for one in ids if found[one] is HeldFile.BUSY),
    )


def requeue(instance: Instance, ids: Sequence[str], *, key: str, record: HeldRecord, now: float) -> ReleaseResult:
    """`postsuper -r` of held messages, under new ids; the maildrop is scanned at once.

    Only from hold and only where no delivery agent has the file open, for a requeue duplicates what is
    in delivery. Raises RequeueRefused where auto-BCC or a content filter would be repeated, PostfixError.
    """
    refused = why_no_requeue(instance)
    if refused:
        raise RequeueRefused(refused)
    with queue_files.as_owner(instance):
        found = {one: queue_files.look(instance, one) for one in ids}
    ready = [one for one in ids if found[one] is HeldFile.READY]
    done = set(postfix.requeue(instance, ready)) if ready else set()
    _write(record, Op.REQUEUE, instance, [one for one in ids if one in done], key=key, now=now)
    if done:
        try:
            postfix.kick(instance, "pickup", "W")
        except PostfixError as error:
            _LOG.warning("%s; pickup looks by itself once a minute", error)
    return ReleaseResult(
        tuple(one for one in ids if one in done),
        tuple(one for one in ids if one not in done and found[one] is not HeldFile.BUSY),
        tuple(one for one in ids if found[one] is HeldFile.BUSY),
    )


def why_no_requeue(instance: Instance) -> str:
    """Say which setting a requeue would apply once more; "" where it may be done."""
    for name in _REPEATED:
        if instance.parameters[name]:
            main = f"{instance.config_directory}/main.cf"
            return f"{main}: {name} = {instance.parameters[name]}: a requeue would apply it again; release instead"
    return ""


def set_time(instance: Instance, ids: Sequence[str], *, due: float) -> ReleaseResult:
    """Make held messages due at `due`; `released` names those that were changed, and nothing is released."""
    with queue_files.as_owner(instance):
        found = {one: queue_files.prepare(instance, one, due=due) for one in ids}
    chosen = {state: tuple(one for one in ids if found[one] is state) for state in HeldFile}
    return ReleaseResult(
        chosen[HeldFile.READY], chosen[HeldFile.MISSING] + chosen[HeldFile.FOREIGN], chosen[HeldFile.BUSY]
    )


def reconcile(instance: Instance, *, record: HeldRecord, now: float) -> dict[str, float]:
    """What is on hold (id -> file time), whoever put it there; ids no longer there leave the record.

    One that we answered HOLD may still be on its way, so it is waited for.
    """
    with queue_files.as_owner(instance):
        there = queue_files.held(instance)
    gone = [
        entry.queue_id
        for entry in record.live.values()
        if entry.instance == instance.syslog_name
        and entry.queue_id not in there
        and not (entry.op is Op.ADOPT and now - entry.time < ADOPTED_WITHIN)
    ]
    _write(record, Op.GONE, instance, gone, key="", now=now)
    return there


def _write(record: HeldRecord | None, op: Op, instance: Instance, ids: Sequence[str], *, key: str, now: float) -> None:
    """Note what is no longer ours. A record that cannot be written must not keep mail on hold."""
    if record is None:
        return
    try:
        record.append(op, instance.syslog_name, ids, key=key, now=now)
    except RecordError as error:
        _LOG.warning("%s; %d ids stay in it that are no longer ours", error, len(ids))
