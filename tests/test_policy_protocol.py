"""The policy protocol as bytes: what is read, however it is cut, and what is written."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parsers.policy_protocol import (
    DUNNO,
    MAX_ATTRIBUTES,
    MAX_REQUEST,
    Action,
    DeferIfPermit,
    Discard,
    Filter,
    Hold,
    Info,
    PolicyConnection,
    PolicyRequest,
    ProtocolError,
    Reject,
    RejectUnverified,
    _shape,
    _Usual,
    encode,
    read_request,
)

# What smtpd of Postfix 3.7.11 with SASL and TLS sends, in its order.
SENT_BY_3_7 = b"""\
request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=192.0.2.7
client_name=app7.example.net
client_port=40512
reverse_client_name=app7.example.net
server_address=192.0.2.1
server_port=587
helo_name=app7.example.net
sender=bounce+a=b@news.example.com
recipient=User@Gmail.com
recipient_count=0
queue_id=
instance=4e4.655d2f0a.5b8a1.0
size=12345
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=app7@example.net
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=submission

"""
SENT_BY_3_8 = SENT_BY_3_7[:-1] + b"compatibility_level=3.8\nmail_version=3.8.4\n\n"
SENT_BY_3_12 = SENT_BY_3_8.replace(b"policy_context", b"tls_sni=mx.example.com\npolicy_context")
WITHOUT_SASL_AND_TLS = b"".join(
    line for line in SENT_BY_3_7.splitlines(keepends=True) if not line.startswith((b"sasl_", b"ccert_", b"encryption_"))
)
SHORT = b"request=smtpd_access_policy\nprotocol_state=DATA\ninstance=9\n\n"

READ = PolicyRequest(
    protocol_state="RCPT",
    client_address="192.0.2.7",
    client_name="app7.example.net",
    helo_name="app7.example.net",
    sender="bounce+a=b@news.example.com",
    recipient="User@Gmail.com",
    recipient_count=0,
    queue_id="",
    instance="4e4.655d2f0a.5b8a1.0",
    size=12345,
    sasl_username="app7@example.net",
    policy_context="submission",
)


def read(data: bytes) -> list[PolicyRequest]:
    return PolicyConnection().receive_data(data)


def played(pieces: list[bytes]) -> tuple[list[PolicyRequest], str]:
    """Everything that comes of these pieces: the requests, and the breach, "" for none."""
    connection, requests = PolicyConnection(), []
    for piece in pieces:
        try:
            requests += connection.receive_data(piece)
        except ProtocolError as error:
            return requests + error.requests, str(error)
    return requests, ""


@pytest.mark.parametrize("sent", [SENT_BY_3_7, SENT_BY_3_8, SENT_BY_3_12])
def test_a_request_as_smtpd_sends_it(sent: bytes) -> None:
    assert read(sent) == [READ]


def test_a_request_without_sasl_and_tls() -> None:
    assert read(WITHOUT_SASL_AND_TLS) == [READ._replace(sasl_username="")]


@pytest.mark.parametrize("sent", [SENT_BY_3_7, SENT_BY_3_8, SENT_BY_3_12, WITHOUT_SASL_AND_TLS])
def test_the_first_request_tells_how_the_next_is_read(sent: bytes) -> None:
    connection = PolicyConnection()
    (first,) = connection.receive_data(sent)
    assert connection.receive_usual(sent) == first, "not read by the fast expression"
    assert connection.receive_data(sent.replace(b"User@", b"Other@")) == [first._replace(recipient="Other@Gmail.com")]
    assert connection.receive_data(SHORT) == read(SHORT)


def test_an_order_that_no_smtpd_has_is_read_as_well() -> None:
    connection, sent = PolicyConnection(), b"request=smtpd_access_policy\nsize=7\nsender=a\n\n"
    assert connection.receive_data(sent) == connection.receive_data(sent)
    assert connection.receive_usual(sent) is None


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        (b"sender=", "sender", ""),
        (b"sender=a=b=c@example.com", "sender", "a=b=c@example.com"),
        (b"sender=a b@example.com", "sender", "a b@example.com"),
        (b"sender=caf\xe9@example.com", "sender", "caf\udce9@example.com"),
        ("sender=café@exämple.com".encode(), "sender", "café@exämple.com"),
        (b"sender=a\x00b\x01@example.com", "sender", "a\x00b\x01@example.com"),
        (b"sender=a@example.com\r", "sender", "a@example.com\r"),
        (b"sender=first@example.com\nsender=last@example.com", "sender", "last@example.com"),
        (b"no equals sign\nsender=a@example.com", "sender", "a@example.com"),
        (b"=no name\nsender=a@example.com", "sender", "a@example.com"),
        (b"colour=green\nsender=a@example.com", "sender", "a@example.com"),
        (b"recipient_count=12", "recipient_count", 12),
        (b"recipient_count=", "recipient_count", 0),
        (b"recipient_count=many", "recipient_count", 0),
        (b"recipient_count=-1", "recipient_count", 0),
        (b"size=" + b"9" * 5000, "size", 0),
        ("size=１２".encode(), "size", 0),
        (b"policy_context=a", "policy_context", "a"),
    ],
)
def test_attributes(lines: bytes, field: str, value: object) -> None:
    (request,) = read(b"request=smtpd_access_policy\n" + lines + b"\n\n")
    assert getattr(request, field) == value


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", ""])
def test_every_state_is_read(state: str) -> None:
    sent = SENT_BY_3_7.replace(b"protocol_state=RCPT", b"protocol_state=" + state.encode())
    assert read(sent) == [READ._replace(protocol_state=state)]


def test_a_request_cut_at_every_offset() -> None:
    stream = SENT_BY_3_7 + SHORT + SENT_BY_3_12
    whole = played([stream])
    assert len(whole[0]) == 3
    for at in range(1, len(stream)):
        assert played([stream[:at], stream[at:]]) == whole, f"cut after {stream[:at][-20:]!r}"


def test_byte_by_byte() -> None:
    stream = SENT_BY_3_7 + SHORT
    assert played([bytes([byte]) for byte in stream]) == played([stream])


def test_many_requests_in_one_segment() -> None:
    assert read(SENT_BY_3_7 * 10) == [READ] * 10


def test_a_long_request_in_writes_of_4096_bytes() -> None:
    sent = SENT_BY_3_7.replace(b"helo_name=app7", b"helo_name=" + b"x" * 9000)
    pieces = [sent[at : at + 4096] for at in range(0, len(sent), 4096)]
    assert played(pieces) == ([READ._replace(helo_name="x" * 9000 + ".example.net")], "")


def test_partial_says_whether_a_request_has_begun() -> None:
    connection = PolicyConnection()
    seen = []
    for piece in (b"", SHORT[:20], SHORT[20:] + SHORT[:1], SHORT[1:], SHORT):
        connection.receive_data(piece)
        seen.append(connection.partial)
    assert seen == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\n", "an empty request"),
        (b"\n\n", "an empty request"),
        (b"\nrequest=smtpd_access_policy\n\n", "an empty request"),
        (b"GET / HTTP/1.1\nHost: a\n\n", "request=''; wanted request=smtpd_access_policy"),
        (b"request=junk\n\n", "request='junk'"),
        (b"request=smtpd_access_policy\r\nprotocol_state=RCPT\r\n\n", "request='smtpd_access_policy\\r'"),
        (b"protocol_state=RCPT\n\n", "request=''"),
        (b"request=smtpd_access_policy\nrequest=other\n\n", "request='other'"),
        (b"x" * MAX_REQUEST, f"more than {MAX_REQUEST} bytes"),
        (b"request=smtpd_access_policy\n" + b"a=b\n" * MAX_ATTRIBUTES + b"\n", "101 attributes; wanted at most 100"),
    ],
)
def test_what_breaks_the_protocol(data: bytes, why: str) -> None:
    for stream in (data, SHORT + data):
        requests, breach = played([stream])
        assert why in breach
        assert len(requests) == (stream is not data), "what was complete before the breach is given out"
        assert played([bytes([byte]) for byte in stream]) == (requests, breach)


def test_crlf_lines_never_end_a_request() -> None:
    """To them no line is empty; smtpd's own scanner does the same."""
    assert played([SENT_BY_3_7.replace(b"\n", b"\r\n")]) == ([], "")


def test_the_longest_request_and_one_byte_more() -> None:
    def of(length: int) -> bytes:
        frame = b"request=smtpd_access_policy\nsender=%s\n\n"
        return frame % (b"s" * (length - len(frame) + 2))

    assert len(read(of(MAX_REQUEST))) == 1
    for stream in (of(MAX_REQUEST + 1), SENT_BY_3_7 + of(MAX_REQUEST + 1), of(10 * MAX_REQUEST)):
        assert f"more than {MAX_REQUEST} bytes" in played([stream])[1]
    usual = SENT_BY_3_7.replace(b"stress=", b"stress=" + b"y" * MAX_REQUEST)
    assert f"more than {MAX_REQUEST} bytes" in played([usual])[1]


def test_garbage_is_not_kept() -> None:
    connection = PolicyConnection()
    for _ in range(MAX_REQUEST // 4096 - 1):
        connection.receive_data(b"x" * 4096)
    with pytest.raises(ProtocolError):
        connection.receive_data(b"x" * 4096)


NAMES = [line.partition(b"=")[0] for line in SENT_BY_3_12.splitlines() if line]
VALUES = st.one_of(
    st.sampled_from([b"", b"0", b"7", b"smtpd_access_policy", b"RCPT", b"a=b", b"\xff\xfe", b"\xc3", b"\r", b"\x00"]),
    st.binary(max_size=8).map(lambda value: value.replace(b"\n", b"")),
)
# Like a request, but with an attribute missing, doubled, moved or maimed here and there.
LINES = st.lists(st.builds(lambda name, value: name + b"=" + value + b"\n", st.sampled_from(NAMES), VALUES), max_size=6)
BLOCKS = st.builds(
    lambda values, dropped, more, at: (
        b"".join(
            [name + b"=" + value + b"\n" for name, value in zip(NAMES, values, strict=True) if name not in dropped][:at]
            + more
            + [name + b"=" + value + b"\n" for name, value in zip(NAMES, values, strict=True) if name not in dropped][
                at:
            ]
        )
        + b"\n"
    ),
    st.tuples(st.just(b"smtpd_access_policy"), *[VALUES] * (len(NAMES) - 1)),
    st.sets(st.sampled_from(NAMES), max_size=4),
    st.one_of(st.just([]), LINES),
    st.integers(0, len(NAMES)),
)
# A usual request, and then one of another kind in the same shape.
JUNK = SENT_BY_3_7.replace(b"smtpd_access_policy", b"junk")
STREAMS = st.lists(
    st.one_of(BLOCKS, BLOCKS, st.binary(max_size=20), st.sampled_from([SENT_BY_3_7, JUNK])), max_size=4
).map(b"".join)


@given(BLOCKS)
@example(SENT_BY_3_12)
def test_the_fast_expression_and_the_dictionary_read_the_same(block: bytes) -> None:
    if block.find(b"\n\n") != len(block) - 2 or block.startswith(b"\n"):
        return  # an empty line inside: not one request
    try:
        wanted = ([read_request(block)], "")
    except ProtocolError as error:
        wanted = ([], str(error))
    assert played([block]) == wanted
    names = tuple(dict.fromkeys(line.partition(b"=")[0].decode("utf-8", "replace") for line in block.split(b"\n")[:-2]))
    shape = _shape(names)
    if shape is None:
        return
    usual = _Usual(shape)
    for _ in range(2):  # the second time as one like the first
        found = usual.read(block)
        assert found is None or [found] == wanted[0]


LINE = st.integers(0, SENT_BY_3_12.count(b"\n") - 2)
VALUE = st.sampled_from([b"", b"7", b"RCPT", b"END-OF-MESSAGE", b"DATA", b"a=b", "\xe9".encode(), b"\xff", b"0" * 19])


@given(st.lists(st.tuples(LINE, VALUE), max_size=12))
@example([(10, b"7"), (1, b"END-OF-MESSAGE"), (10, b"RCPT"), (1, b"RCPT")])
def test_what_is_like_the_request_before_is_read_like_any_other(changes: list[tuple[int, bytes]]) -> None:
    """One line changes at a time, of a session that all else stays the same in."""
    connection, lines = PolicyConnection(), SENT_BY_3_12.splitlines()
    connection.receive_data(SENT_BY_3_12)
    for at, value in changes:
        lines[at] = lines[at].partition(b"=")[0] + b"=" + (value if at else b"smtpd_access_policy")
        block = b"\n".join(lines) + b"\n"
        assert connection.receive_data(block) == [read_request(block)]


def test_nothing_of_the_client_before_is_kept() -> None:
    connection = PolicyConnection()
    connection.receive_data(SENT_BY_3_7)
    other = SENT_BY_3_7.replace(b"192.0.2.7", b"192.0.2.8")
    for sent in (SENT_BY_3_7, other, other, SENT_BY_3_7.replace(b"app7@", b"app8@"), SENT_BY_3_7):
        assert connection.receive_usual(sent) == read_request(sent)


@pytest.mark.parametrize("sent", [SENT_BY_3_7, SENT_BY_3_12])
def test_a_request_of_another_kind_is_none_of_the_usual(sent: bytes) -> None:
    requests, why = played([sent, sent.replace(b"smtpd_access_policy", b"junk")])
    assert len(requests) == 1
    assert "request='junk'" in why


@given(st.sampled_from([SENT_BY_3_7, SENT_BY_3_12]), st.data())
def test_a_line_in_the_place_of_another_is_read_by_its_name(sent: bytes, data: st.DataObject) -> None:
    """Of lines that are not kept the fast expression looks at the beginning only."""
    lines = sent.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.sampled_from(NAMES) | st.sampled_from(NAMES).map(lambda name: name[:-1]))
    lines[at] = other + data.draw(st.sampled_from([b"=7\n", b"=\n", b"\n"]))
    changed = b"".join(lines)
    usual = played([sent, changed])
    slow = played([sent, changed[:1], changed[1:]])
    assert usual == slow


@given(STREAMS, st.lists(st.integers(0, 3000), max_size=8))
def test_any_bytes_cut_anywhere_give_the_same(stream: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(stream)]
    assert played([stream[begin:end] for begin, end in pairwise(at)]) == played([stream])


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_give_requests_or_a_protocol_error(pieces: list[bytes]) -> None:
    played(pieces)


@pytest.mark.parametrize(
    ("action", "bytes_"),
    [
        (DUNNO, b"action=DUNNO\n\n"),
        (Hold("sidecar a:b@c (d/e)"), b"action=HOLD sidecar a:b@c (d/e)\n\n"),
        (Filter("lane-01"), b"action=FILTER lane-01:\n\n"),
        (Reject("5.1.1", "no such user"), b"action=REJECT 5.1.1 no such user\n\n"),
        (DeferIfPermit("4.7.1", "later"), b"action=DEFER_IF_PERMIT 4.7.1 later\n\n"),
        (Discard("this person unsubscribed"), b"action=DISCARD this person unsubscribed\n\n"),
        (Info("sidecar would hold"), b"action=INFO sidecar would hold\n\n"),
        (RejectUnverified(), b"action=reject_unverified_recipient\n\n"),
        (Reject("5.1.1", "nö"), "action=REJECT 5.1.1 nö\n\n".encode()),
    ],
)
def test_what_is_written(action: Action, bytes_: bytes) -> None:
    assert encode(action) == bytes_


@pytest.mark.parametrize(
    "text", ["", " ", "a\nb", "a\rb", "a\x00b", "a\x7fb", "a\u2028b", "\udcff", " a", "a ", "a\tb", "x" * 400]
)
def test_texts_that_could_forge_a_reply(text: str) -> None:
    for action in (Hold("a"), Reject("5.1.1", "a"), DeferIfPermit("4.7.1", "a"), Discard("a"), Info("a")):
        with pytest.raises(ValueError, match="wanted"):
            encode(replace(action, text=text))


@pytest.mark.parametrize(
    "action",
    [
        Filter(""),
        Filter("lane:"),
        Filter("lane 01"),
        Filter("-lane"),
        Filter("lane\n"),
        Filter("x" * 400),
        Reject("4.1.1", "a"),
        Reject("5.1", "a"),
        Reject("", "a"),
        Reject("5.1.1 OK", "a"),
        DeferIfPermit("5.7.1", "a"),
        DeferIfPermit("4.7.1\n", "a"),
    ],
)
def test_what_postfix_would_misread(action: Action) -> None:
    with pytest.raises(ValueError, match="wanted"):
        encode(action)


GRAMMAR = re.compile(
    rb"action=(?:DUNNO|HOLD \S.*|FILTER [\w.-]+:|REJECT 5\.\d+\.\d+ \S.*|DISCARD \S.*|DEFER_IF_PERMIT 4\.\d+\.\d+ \S.*|INFO \S.*)\n\n"
)
TEXTS = st.text(max_size=500)


@given(
    st.one_of(
        st.builds(Hold, TEXTS),
        st.builds(Filter, TEXTS),
        st.builds(Reject, st.one_of(TEXTS, st.just("5.7.1")), TEXTS),
        st.builds(DeferIfPermit, st.one_of(TEXTS, st.just("4.7.1")), TEXTS),
        st.builds(Discard, TEXTS),
        st.builds(Info, TEXTS),
    )
)
def test_an_action_is_refused_or_written_in_the_closed_grammar(action: Action) -> None:
    try:
        reply = encode(action)
    except ValueError:
        return
    assert GRAMMAR.fullmatch(reply)
    assert reply.decode().rstrip("\n").isprintable()
    assert len(reply) <= 400 + len("action=\n\n")
