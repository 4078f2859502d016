"""Memory of the message tracker: live queue ids against the bar of 800 MB a million.

Each message is made as the log makes it: policy answer, queue active, one deferral.
"""

import json
import resource
import sys
import time

from parsers.postfix import facts
from parsers.record import LogRecord
from parsers.smtp import Reply
from policies.access import Arrival
from policies.engine import Engine
from policies.site import Settings
from sidecar import rules

REASON = (
    "host gmail-smtp-in.l.google.com[192.0.2.1] said: 450 4.2.1 Try again later - gsmtp (in reply to RCPT TO command)"
)


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int) -> dict[str, float]:
    engine = Engine(rules.load(), rules.organizational_domain, Settings(act=True))
    empty = resident_mb()
    began = time.process_time()
    for i in range(count):
        one(engine, i)
        if i % 1_000 == 0:
            engine.telling.attempts.clear()
    seconds = time.process_time() - began
    return {
        "live": len(engine.messages),
        "empty_mb": round(empty, 1),
        "resident_mb": round(resident_mb(), 1),
        "bytes_a_message": round((resident_mb() - empty) * 1024 * 1024 / count),
        "microseconds_a_message": round(seconds / count * 1e6, 1),
    }


def one(engine: Engine, i: int) -> None:
    queue_id, sender, recipient = f"4Wz{i:011d}zB", f"bounce-{i}@shop-{i % 500}.example", f"user{i}@gmail.com"
    arrival = Arrival(
        "postfix", queue_id, sender, (recipient,), complete=True, size=9, client_address="", sasl_username=""
    )
    engine.arriving(arrival, now=float(i))
    record = LogRecord(float(i), "mx1", "postfix", "", "qmgr", 7, "")
    engine.observe(facts.QueueActive(record, queue_id, sender, 9, 1), now=float(i))
    reply = Reply("450", "4.2.1", "Try again later", "gmail-smtp-in.l.google.com", "192.0.2.1", "RCPT TO")
    delays = facts.Delays(0.0, 0.0, 0.1, 0.2)
    engine.observe(
        facts.DeliveryAttempt(
            record,
            queue_id,
            recipient,
            "",
            reply.host,
            reply.address,
            25,
            None,
            1.0,
            delays,
            "",
            "4.2.1",
            "deferred",
            REASON,
        ),
        now=float(i),
    )


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
