"""A message as `sidecar parse --messages` prints it: the record's fields under their names; what is not set is left out."""

from datetime import UTC, datetime, tzinfo
from typing import Any

from policies.message_record import MessageRecord, RecipientOutcome


def message_json(message: MessageRecord, zone: tzinfo = UTC) -> dict[str, Any]:
    """Give what `json.dumps` takes. Times are ISO 8601 with the offset of `zone`. A `sender` of "" is the null sender, an
    unknown one is left out; a recipient names its `queue_id` where the message had several.
    """
    return {
        "queue_ids": [hop.queue_id for hop in message.hops],
        "host": message.host,
        "instance": message.instance,
        "end": message.end,
        "arrival": _time(message.arrival, zone),
        "ended": _time(message.ended, zone),
        **({} if message.begun else {"begun": False}),
        **({} if message.sender is None else {"sender": message.sender}),
        **_set(
            message_id=message.message_id,
            client_host=message.client_host,
            client_address=message.client_address,
            sasl_username=message.sasl_username,
            size=message.size,
            headers=message.headers,
            dkim_domains=message.dkim_domains,
            notifications=[notification._asdict() for notification in message.notifications],
            notification_of=message.notification_of,
        ),
        "recipients": [_recipient(one, zone, several=len(message.hops) > 1) for one in message.recipients],
    }


def _recipient(one: RecipientOutcome, zone: tzinfo, *, several: bool) -> dict[str, Any]:
    return _set(
        recipient=one.recipient,
        orig_to=one.orig_to,
        status=one.status,
        dsn=one.dsn,
        reason=one.reason,
        relay_host=one.relay_host,
        relay_address=one.relay_address,
        service=one.service,
        daemon=one.daemon,
        attempts=one.attempts,
        first_attempt=_time(one.first_attempt, zone),
        last_attempt=_time(one.last_attempt, zone),
        queue_id=one.hop.queue_id if several else "",
    )


def _set(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _time(seconds: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(seconds, zone).isoformat()
