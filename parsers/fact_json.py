"""A fact as `sidecar parse` prints it: its name, the record's fields, its own; what is not set is left out."""

from datetime import UTC, datetime, tzinfo
from typing import Any

from parsers.postfix.facts import ClientDisconnected, DeliveryAttempt, Fact, RemoteReply


def fact_json(fact: Fact, zone: tzinfo = UTC) -> dict[str, Any]:
    """Give what `json.dumps` takes. Times are ISO 8601 with the offset of `zone`.

    Unset is "" and None, and a pid of 0; `delays` is a list of four numbers, `reply` an object, `counts` an object of
    [succeeded, total].
    """
    record = fact.record
    said: dict[str, Any] = {
        "fact": type(fact).__name__,
        "time": datetime.fromtimestamp(record.time, zone).isoformat(),
        "host": record.host,
        "instance": record.instance,
        "service": record.service,
        "daemon": record.daemon,
        "pid": record.pid or None,
        **fact._asdict(),
    }
    del said["record"]
    if isinstance(fact, DeliveryAttempt | RemoteReply):
        said["reply"] = _set(fact.reply._asdict()) if fact.reply else None
    if isinstance(fact, DeliveryAttempt):
        said["delays"] = list(fact.delays)
        said["extra"] = dict(fact.extra) or None
    if isinstance(fact, ClientDisconnected):
        said["counts"] = {command: [succeeded, total] for command, succeeded, total in fact.counts}
    return _set(said)


def _set(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != ""}
