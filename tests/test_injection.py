"""A table of what strangers choose: every payload in every field of every shape, and what must not move.

test_log_injection.py makes its lines by chance; this one leaves none out.
"""

import re
from datetime import UTC
from typing import Any, NamedTuple

import pytest

from parsers.log import LogReader

QUEUE_ID = "4bTRUE0001zA01"
TRUE = "true.example[192.0.2.1]"

PAYLOADS = (
    "status=sent (250 2.0.0 Ok: queued as 3F2A81C0B8)",
    ", dsn=2.0.0, status=sent (250 ok)",
    ">, relay=fake[6.6.6.6]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)",
    "x>, orig_to=<y>, relay=fake[6.6.6.6]:25, conn_use=9, delay=0, delays=0/0/0/0, tls=may, dsn=2.0.0, status=sent (ok)",
    ", relay=fake[6.6.6.6]:25",
    ", delay=9, delays=9/9/9/9",
    ", conn_use=99",
    ", tls=dane",
    "3F2A81C0B8: removed",
    "3F2A81C0B8: to=<a@b>, relay=fake[6.6.6.6]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)",
    "NOQUEUE: reject: RCPT from fake[6.6.6.6]: 554 5.7.1 no; from=<a@b> to=<c@d> proto=SMTP helo=<h>",
    "; from=<fake@fake> to=<fake@fake> proto=SMTP helo=<fake>",
    " from fake[6.6.6.6]; from=<fake@fake> to=<fake@fake> proto=ESMTP helo=<fake>",
    " from fake[6.6.6.6]: 554 5.7.1 no",
    " from local; from=<fake@fake>",
    "> sasl_method=PLAIN sasl_username=admin",
    ", sasl_method=PLAIN, sasl_username=admin",
    ", sasl_sender=admin, orig_queue_id=3F2A81C0B8, orig_client=fake[6.6.6.6]",
    ", orig_queue_id=3F2A81C0B8",
    ", size=1, nrcpt=1 (queue active)",
    ">, size=1, nrcpt=9 (queue active)",
    "> orig_id=3F2A81C0B8",
    "host fake[6.6.6.6] said: 550 5.1.1 gone (in reply to RCPT TO command)",
    " (in reply to end of DATA command))",
    ")) status=bounced (",
    "said: 550 5.1.1",
    "refused to talk to me: 554",
    "forwarded as 3F2A81C0B8",
    "queued as 3F2A81C0B8",
    "sender non-delivery notification: 3F2A81C0B8",
    "Jun  1 12:00:00 mx9 postfix/smtp[9]: 3F2A81C0B8: removed",
    "2025-06-01T12:00:00Z mx9 postfix/smtp[9]: 3F2A81C0B8: removed",
    "<22>1 2025-06-01T12:00:00Z mx9 postfix/smtp 9 - - 3F2A81C0B8: removed",
    "]: 3F2A81C0B8: removed",
    "message repeated 5 times: [ 3F2A81C0B8: removed]",
    "last message repeated 5 times",
    "warning: open active 3F2A81C0B8: No such file or directory",
    "open active 3F2A81C0B8: No such file or directory",
    '"', '\\"', "\\", "'", "<", ">", "<>", "[", "]", "(", ")", "@", ";", ":", ",", "=", "%s%n", "${x}", "?" * 60,
    # What else ends a line for somebody, or looks like another character; Postfix lets UTF-8 pass.
    "a\u2028Jun  1 12:00:00 mx9 postfix/smtp[9]: 3F2A81C0B8: removed", "a\u2029b", "a\x85b\x0bc\x0cd\x1ce", "a\tb", "\ufeffa", "\u202e)tnes=sutats",
    "st\u0430tus=sent (250 ok)", "status\uff1dsent \uff08250\uff09", "\uff1e, relay\uff1dfake[6.6.6.6]:25", "a\u200bb\u00a0c", "\u2039a\u203a",
    "Jun  1 12:00:00 mx9 postfix/smtp[9]: message repeated 5 times: [ 3F2A81C0B8: removed]", "INFO    postfix/smtp[9]: 3F2A81C0B8: removed",
    '{"log":"Jun  1 12:00:00 mx9 postfix/smtp[9]: 3F2A81C0B8: removed","stream":"stdout"}', "__REALTIME_TIMESTAMP=1", "MESSAGE=3F2A81C0B8: removed",
    "Untrusted TLS connection established to fake[6.6.6.6]:25: TLSv1.3 with cipher X (1/1 bits)", "TLS is required, but host fake[6.6.6.6] said",
    "[2001:db8::6%eth0]:25: ", "fake[2001:db8::6%25lo]:25, delay=0", "::ffff:6.6.6.6", "\\r\\n.\\r\\nMAIL FROM:<fake@fake>\\r\\n", "?" * 3 + "Received: from fake",
    ", extra=key, dsn=2.0.0, status=sent (", "-- message may be sent more than once", "(total 3F2A81C0B8)", "\u0661\u0662\u0663", "\ud7ff\ue000",
    "ü" * 40, "日本語", "a" * 400, "(" * 80, ")" * 80, "<a" * 40, "; " * 60, ": " * 60, ", " * 60,
)  # fmt: skip
NAMES = (
    "status.sent", "from.fake", "unknown", "localhost", "127.0.0.1", "NOQUEUE", "3F2A81C0B8", "removed", "postfix.smtp-1", "4.7.1",
    "a-b--c.xn--fake", "_dmarc.fake", "to.fake.to", "warning", "in-reply-to", "6.6.6.6", "fake_6_6_6_6", "a" * 63 + ".example",
)  # fmt: skip
"""Host names that a stranger may give to his address: Postfix lets letters, digits, dots, hyphens and underscores pass."""

_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def quoted(local: str) -> str:
    if not _ATOM.fullmatch(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{local}@example.com"


class Shape(NamedTuple):
    """One field of one kind of line."""

    name: str
    daemon: str
    text: str
    """{q} the address of the payload in external form, {a} the same in internal form, {x} as it is."""
    wanted: dict[str, Any]


DELIVERED = {
    "queue_id": QUEUE_ID, "relay_host": "true.example", "relay_address": "192.0.2.1", "relay_port": 25, "delay": 1.5,
    "delays": (0.1, 0.2, 0.3, 0.9), "dsn": "4.7.1", "status": "deferred", "conn_use": None, "tls": "", "extra": (),
}  # fmt: skip
BEHIND = f"relay={TRUE}:25, delay=1.5, delays=0.1/0.2/0.3/0.9, dsn=4.7.1, status=deferred"
SAID = f"(host {TRUE} said: 450 4.7.1 later (in reply to RCPT TO command))"
REFUSED = {"queue_id": "", "client_host": "true.example", "client_address": "192.0.2.1", "stage": "RCPT", "action": "reject",
           "code": "554", "enhanced": "5.7.1"}  # fmt: skip
TAIL = "proto=ESMTP helo=<true>"

SHAPES = (
    Shape("recipient", "smtp", f"{QUEUE_ID}: to=<{{q}}>, {BEHIND} {SAID}", {**DELIVERED, "recipient": "{q}", "orig_to": ""}),
    Shape("orig_to", "smtp", f"{QUEUE_ID}: to=<a@b>, orig_to=<{{q}}>, {BEHIND} {SAID}",
          {**DELIVERED, "recipient": "a@b", "orig_to": "{q}"}),
    Shape("recipient-local", "local", f"{QUEUE_ID}: to=<{{q}}>, relay=local, delay=1.5, delays=0.1/0.2/0.3/0.9, dsn=5.1.1"
          ", status=bounced (unknown user)", {"queue_id": QUEUE_ID, "recipient": "{q}", "status": "bounced",
                                              "relay_host": "local", "relay_address": "", "reply": None}),
    Shape("recipient-3.11", "smtp", f"{QUEUE_ID}: to=<{{q}}>, {BEHIND} {SAID}".replace(", dsn=", ", tls=may, dsn="),
          {**DELIVERED, "tls": "may", "recipient": "{q}"}),
    Shape("recipient-new-key", "smtp", f"{QUEUE_ID}: to=<{{q}}>, {BEHIND} {SAID}".replace(", dsn=", ", new=key, dsn="),
          {**DELIVERED, "extra": (("new", "key"),), "recipient": "{q}"}),
    Shape("reply", "smtp", f"{QUEUE_ID}: to=<a@b>, {BEHIND} (host {TRUE} said: 450 4.7.1 {{x}} (in reply to RCPT TO command))",
          {**DELIVERED, "recipient": "a@b", "reply.code": "450", "reply.host": "true.example", "reply.address": "192.0.2.1",
           "reply.command": "RCPT TO", "reply.enhanced": "4.7.1"}),
    Shape("reply-accepted", "smtp", f"{QUEUE_ID}: to=<a@b>, relay={TRUE}:25, delay=1.5, delays=0.1/0.2/0.3/0.9, dsn=2.0.0"
          ", status=sent (250 2.0.0 {x})", {**DELIVERED, "dsn": "2.0.0", "status": "sent", "reply.code": "250", "reply.host": ""}),
    Shape("reply-greeting", "smtp", f"{QUEUE_ID}: to=<a@b>, {BEHIND} (host {TRUE} refused to talk to me: 554 5.7.1 {{x}})",
          {**DELIVERED, "reply.code": "554", "reply.command": "greeting", "reply.address": "192.0.2.1"}),
    Shape("reply-suspended", "error", f"{QUEUE_ID}: to=<a@b>, relay=none, delay=1.5, delays=0.1/0.2/0.3/0.9, dsn=4.7.1"
          f", status=deferred (delivery temporarily suspended: host {TRUE} refused to talk to me: 421 4.7.0 {{x}})",
          {"queue_id": QUEUE_ID, "status": "deferred", "relay_host": "none", "relay_address": "", "reply.address": "192.0.2.1"}),
    Shape("reply-side-line", "smtp", f"{QUEUE_ID}: host {TRUE} said: 450 4.7.1 {{x}} (in reply to RCPT TO command)",
          {"queue_id": QUEUE_ID, "relay_host": "true.example", "relay_address": "192.0.2.1", "reply.code": "450"}),
    Shape("pipe-output", "pipe", f"{QUEUE_ID}: to=<a@b>, relay=tool, delay=1.5, delays=0.1/0.2/0.3/0.9, dsn=5.3.0"
          ', status=bounced (Command died with status 1: "tool". Command output: {x})',
          {"queue_id": QUEUE_ID, "status": "bounced", "relay_host": "tool", "relay_address": "", "reply": None}),
    Shape("sender", "qmgr", f"{QUEUE_ID}: from=<{{q}}>, size=512, nrcpt=7 (queue active)",
          {"queue_id": QUEUE_ID, "sender": "{q}", "size": 512, "nrcpt": 7}),
    Shape("sender-internal", "qmgr", f"{QUEUE_ID}: from=<{{a}}>, size=512, nrcpt=7 (queue active)",
          {"queue_id": QUEUE_ID, "sender": "{a}", "size": 512, "nrcpt": 7}),
    Shape("sender-expired", "qmgr", f"{QUEUE_ID}: from=<{{a}}>, status=expired, returned to sender",
          {"queue_id": QUEUE_ID, "sender": "{a}", "forced": False}),
    Shape("sender-picked-up", "pickup", f"{QUEUE_ID}: uid=5 from=<{{q}}>",
          {"queue_id": QUEUE_ID, "uid": 5, "sender": "{q}", "orig_id": ""}),
    Shape("refused-helo", "smtpd", f"NOQUEUE: reject: RCPT from {TRUE}: 554 5.7.1 <c@d>: Relay access denied; from=<a@b> to=<c@d>"
          " proto=ESMTP helo=<{x}>", {**REFUSED, "sender": "a@b", "recipient": "c@d"}),
    Shape("refused-sender", "smtpd", f"NOQUEUE: reject: RCPT from {TRUE}: 554 5.7.1 <{{q}}>: Sender address rejected: no"
          f"; from=<{{q}}> to=<c@d> {TAIL}", {**REFUSED, "sender": "{q}", "recipient": "c@d"}),
    Shape("refused-recipient", "smtpd", f"NOQUEUE: reject: RCPT from {TRUE}: 554 5.7.1 <{{q}}>: Relay access denied"
          f"; from=<a@b> to=<{{q}}> {TAIL}", {**REFUSED, "sender": "a@b", "recipient": "{q}"}),
    Shape("refused-text", "smtpd", f"NOQUEUE: reject: RCPT from {TRUE}: 554 5.7.1 <c@d>: Recipient address rejected: {{x}}"
          f"; from=<a@b> to=<c@d> {TAIL}", REFUSED),
    Shape("refused-by-milter", "cleanup", f"{QUEUE_ID}: milter-reject: END-OF-MESSAGE from {TRUE}: 5.7.1 {{x}}"
          f"; from=<a@b> to=<c@d> {TAIL}", {"queue_id": QUEUE_ID, "client_address": "192.0.2.1", "stage": "END-OF-MESSAGE"}),
    Shape("held-sender", "smtpd", f"{QUEUE_ID}: hold: DATA from {TRUE}: <DATA>: Data command ours; from=<{{q}}> to=<c@d> {TAIL}",
          {"queue_id": QUEUE_ID, "by": "policy", "stage": "DATA", "text": "ours", "sender": "{q}"}),
    Shape("sasl", "smtpd", f"{QUEUE_ID}: client={TRUE}, sasl_method=PLAIN, sasl_username={{x}}",
          {"queue_id": QUEUE_ID, "client_host": "true.example", "client_address": "192.0.2.1", "sasl_method": "PLAIN",
           "orig_queue_id": ""}),
    Shape("sasl-failed", "smtpd", f"warning: {TRUE}: SASL LOGIN authentication failed: bad, sasl_username={{x}}",
          {"queue_id": "", "client_host": "true.example", "client_address": "192.0.2.1", "mechanism": "LOGIN"}),
    Shape("header", "cleanup", f"{QUEUE_ID}: info: header Subject: {{h}} from {TRUE}; from=<a@b> to=<c@d> {TAIL}",
          {"queue_id": QUEUE_ID, "header": "Subject", "action": "info", "sender": "a@b", "recipient": "c@d"}),
    Shape("header-held", "cleanup", f"{QUEUE_ID}: hold: header Subject: {{h}} from {TRUE}; from=<a@b> to=<c@d> {TAIL}: why",
          {"queue_id": QUEUE_ID, "by": "cleanup", "text": "why", "sender": "a@b"}),
    Shape("body", "cleanup", f"{QUEUE_ID}: warning: body {{h}} from {TRUE}; from=<a@b> to=<c@d> {TAIL}",
          {"queue_id": QUEUE_ID, "header": "", "action": "warning", "sender": "a@b"}),
    Shape("message-id", "cleanup", f"{QUEUE_ID}: message-id=<{{x}}>", {"queue_id": QUEUE_ID, "message_id": "<{x}>", "resent": False}),
    Shape("smtp-header", "smtp", f"{QUEUE_ID}: info: header Subject: {{x}}", {"queue_id": QUEUE_ID, "header": "Subject"}),
    Shape("pipelining", "smtpd", f"improper command pipelining after EHLO from {TRUE}: {{x}}", {"queue_id": "", "severity": "info"}),
    Shape("non-smtp", "smtpd", f"warning: non-SMTP command from {TRUE}: {{x}}", {"queue_id": "", "severity": "warning"}),
    Shape("pregreet", "postscreen", "PREGREET 9 after 0.1 from [192.0.2.1]:25: {x}",
          {"queue_id": "", "verdict": "PREGREET", "client_address": "192.0.2.1"}),
    Shape("postscreen-helo", "postscreen", "NOQUEUE: reject: RCPT from [192.0.2.1]:25: 450 4.3.2 Service currently unavailable"
          "; from=<a@b>, to=<c@d>, proto=ESMTP, helo=<{x}>",
          {"queue_id": "", "client_address": "192.0.2.1", "code": "450", "sender": "a@b", "recipient": "c@d"}),
    Shape("protocol-error", "smtp", f"{QUEUE_ID}: Protocol error: host {TRUE} said: {{x}} (in reply to MAIL FROM command)",
          {"queue_id": QUEUE_ID, "relay_host": "true.example", "relay_address": "192.0.2.1"}),
    Shape("tls-required", "smtp", f"{QUEUE_ID}: TLS is required, but host {TRUE} refused to start TLS: 454 4.7.0 {{x}}",
          {"queue_id": QUEUE_ID, "role": "client", "peer_host": "true.example", "peer_address": "192.0.2.1"}),
    Shape("tls-issuer", "smtp", f"certificate verification failed for {TRUE}:25: untrusted issuer /CN={{x}}",
          {"queue_id": "", "role": "client", "peer_host": "true.example", "peer_address": "192.0.2.1"}),
    Shape("tls-client-issuer", "smtpd", f"certificate verification failed for {TRUE}: untrusted issuer /CN={{x}}",
          {"queue_id": "", "role": "server", "peer_host": "true.example", "peer_address": "192.0.2.1"}),
    Shape("tls-subject", "smtpd", f"{TRUE}: subject_CN={{x}}, issuer=fake, fingerprint=00", {"queue_id": "", "severity": "info"}),
    Shape("tls-sni", "smtpd", f"TLS SNI {{x}} from {TRUE} not matched, using default chain", {"queue_id": "", "severity": "info"}),
    Shape("tlsrpt", "smtp", f"TLSRPT: status=failure, domain=example.com, receiving_mx={TRUE}, failure_type=validation-failure {{x}}",
          {"queue_id": "", "role": "client", "peer_host": "true.example", "peer_address": "192.0.2.1"}),
    Shape("illegal-address", "smtpd", f"warning: Illegal address syntax from {TRUE} in RCPT command: {{x}}",
          {"queue_id": "", "severity": "warning"}),
    Shape("replaced-command", "smtpd", f'{QUEUE_ID}: replacing command "{{x}}" with "NOOP"', {"queue_id": QUEUE_ID, "severity": "info"}),
    Shape("header-attachment", "cleanup", f'{QUEUE_ID}: reject: mime Content-Disposition: attachment; filename="{{h}}" from {TRUE}'
          f"; from=<a@b> to=<c@d> {TAIL}: 5.7.1 no", {"queue_id": QUEUE_ID, "action": "reject", "sender": "a@b", "recipient": "c@d"}),
    Shape("header-by-milter", "cleanup", f"{QUEUE_ID}: milter-header-add: header X-Spam: {{h}} from {TRUE}; from=<a@b> to=<c@d> {TAIL}",
          {"queue_id": QUEUE_ID, "action": "milter-header-add", "header": "X-Spam", "sender": "a@b", "recipient": "c@d"}),
    Shape("sasl-sender", "smtpd", f"{QUEUE_ID}: client={TRUE}, sasl_method=PLAIN, sasl_username=ours, sasl_sender={{x}}",
          {"queue_id": QUEUE_ID, "client_address": "192.0.2.1", "sasl_method": "PLAIN", "sasl_username": "ours", "orig_queue_id": ""}),
    Shape("sasl-sender-alone", "smtpd", f"{QUEUE_ID}: client={TRUE}, sasl_sender={{x}}",
          {"queue_id": QUEUE_ID, "client_address": "192.0.2.1", "sasl_username": "", "orig_queue_id": ""}),
    Shape("sasl-said", "smtp", f"{QUEUE_ID}: SASL authentication failed; server {TRUE} said: 535 5.7.8 {{x}}",
          {"queue_id": QUEUE_ID, "relay_host": "true.example", "relay_address": "192.0.2.1"}),
    Shape("orig-client", "smtpd", f"{QUEUE_ID}: client={TRUE}, orig_queue_id=3F2A81C0B9, orig_client={{x}}",
          {"queue_id": QUEUE_ID, "client_host": "true.example", "orig_queue_id": "3F2A81C0B9", "sasl_username": ""}),
    Shape("etrn", "smtpd", f"NOQUEUE: reject: ETRN from {TRUE}: 459 4.7.1 <{{x}}>: Etrn command rejected: no; proto=ESMTP helo=<true>",
          {**REFUSED, "stage": "ETRN", "code": "459", "enhanced": "4.7.1"}),
    Shape("vrfy", "smtpd", f"NOQUEUE: reject: VRFY from {TRUE}: 550 5.1.1 <{{q}}>: Recipient address rejected: no; to=<{{q}}> {TAIL}",
          {**REFUSED, "stage": "VRFY", "code": "550", "enhanced": "5.1.1", "recipient": "{q}"}),
    Shape("proxy-answer", "smtpd", f"proxy-reject: END-OF-MESSAGE: 554 5.7.0 {{x}}; from=<a@b> to=<c@d> {TAIL}",
          {"queue_id": "", "action": "proxy-reject", "code": "554", "client_address": ""}),
    Shape("postscreen-command", "postscreen", "COMMAND PIPELINING from [192.0.2.1]:25 after EHLO: {x}",
          {"queue_id": "", "verdict": "COMMAND PIPELINING", "client_address": "192.0.2.1", "client_port": 25}),
    Shape("postscreen-sender", "postscreen", "NOQUEUE: reject: RCPT from [192.0.2.1]:25: 550 5.7.1 Service unavailable; client [192.0.2.1]"
          " blocked using zen.example; from=<{q}>, to=<c@d>, proto=ESMTP, helo=<true>",
          {"queue_id": "", "client_address": "192.0.2.1", "code": "550", "recipient": "c@d"}),
    Shape("dnsbl-text", "smtpd", f"NOQUEUE: reject: RCPT from {TRUE}: 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using"
          f" zen.example; {{x}}; from=<a@b> to=<c@d> {TAIL}", REFUSED),
    Shape("bounce-template", "bounce", f"warning: {QUEUE_ID}: sender notification failed to <{{q}}>: {{x}}",
          {"queue_id": QUEUE_ID, "severity": "warning"}),
    Shape("selector", "opendkim", f"{QUEUE_ID}: s={{x}} d={{x}} a=rsa-sha256 SSL error:04091068", {"queue_id": QUEUE_ID, "severity": "info"}),
    Shape("dkim", "opendmarc", f"{QUEUE_ID}: {{x}} fail", {"queue_id": QUEUE_ID, "severity": "info"}),
)  # fmt: skip

NAMED = (
    Shape("client-name", "smtpd", f"{QUEUE_ID}: client={{x}}[192.0.2.1]",
          {"queue_id": QUEUE_ID, "client_host": "{x}", "client_address": "192.0.2.1", "orig_queue_id": ""}),
    Shape("connect-name", "smtpd", "connect from {x}[192.0.2.1]", {"client_host": "{x}", "client_address": "192.0.2.1"}),
    Shape("refused-name", "smtpd", f"NOQUEUE: reject: RCPT from {{x}}[192.0.2.1]: 554 5.7.1 <c@d>: no; from=<a@b> to=<c@d> {TAIL}",
          {**REFUSED, "client_host": "{x}"}),
    Shape("relay-name", "smtp", f"{QUEUE_ID}: to=<a@b>, {BEHIND.replace('true.example', '{x}')} {SAID}",
          {**DELIVERED, "relay_host": "{x}"}),
    Shape("lost-name", "smtpd", "lost connection after DATA from {x}[192.0.2.1]",
          {"stage": "DATA", "client_host": "{x}", "client_address": "192.0.2.1"}),
    Shape("header-name", "cleanup", f"{QUEUE_ID}: info: header Subject: x from {{x}}[192.0.2.1]; from=<a@b> to=<c@d> {TAIL}",
          {"queue_id": QUEUE_ID, "value": "x", "sender": "a@b"}),
)  # fmt: skip


def filled(text: str, payload: str) -> str:
    header = payload.encode()[:150].decode(errors="ignore")
    words = {"{q}": quoted(payload), "{a}": f"{payload}@example.com", "{h}": header, "{x}": payload}
    return re.sub(r"\{[qahx]\}", lambda match: words[match[0]], text)


def check(shape: Shape, payload: str) -> None:
    line = f"2025-06-01T12:00:00Z mx1 postfix/{shape.daemon}[77]: {filled(shape.text, payload)}\n"
    if shape.daemon in {"opendmarc", "opendkim"}:
        line = line.replace("postfix/", "")
    reader = LogReader(zone=UTC)
    facts = reader.block_facts(line.encode() + line.encode())  # the second time its process is known
    assert len(facts) == 2
    for fact in facts:
        assert (fact.record.host, fact.record.daemon, fact.record.pid) == ("mx1", shape.daemon, 77)
        for name, value in shape.wanted.items():
            found: Any = fact
            for part in name.split("."):
                found = getattr(found, part)
            assert found == (filled(value, payload) if isinstance(value, str) else value), name


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_payload(shape: Shape, payload: str) -> None:
    check(shape, payload)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", NAMED, ids=lambda shape: shape.name)
def test_name(shape: Shape, name: str) -> None:
    check(shape, name)


def test_the_table_is_large() -> None:
    assert len(SHAPES) * len(PAYLOADS) + len(NAMED) * len(NAMES) > 2_000
