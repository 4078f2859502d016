from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import postfix, queue_files
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.postfix import Instance, PostfixError, QueuedMessage

pytestmark = pytest.mark.postfix


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> PrivatePostfix:
    """A configuration that nobody runs."""
    return PrivatePostfix(tmp_path_factory.mktemp("stopped"))


@pytest.mark.parametrize(
    ("text", "unit", "wanted"),
    [
        ("5d", "d", 432000),
        ("5", "d", 432000),
        ("0h", "h", 0),
        ("300s", "s", 300),
        ("300", "s", 300),
        ("1w", "d", 604800),
    ],
)
def test_times_are_read_in_seconds(text: str, unit: str, wanted: float) -> None:
    assert postfix.seconds(text, unit) == wanted


@pytest.mark.parametrize("text", ["", "d", "1y", "five"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        postfix.seconds(text, "s")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4jX2Q347kNzJ9DC", True),
        ("3A1F72C4D2", True),
        ("AABBC1", True),
        ("AABBC", False),
        ("aabbccdd", False),  # short ids are upper case
        ("4jX2Q347kNzJ9Da", False),  # no vowels
        ("4jX2Q347kNJ9DC", False),  # no z
        ("4jX2Q347kNz", False),  # nothing behind it
        ("ALL", False),  # what postsuper would take for every message
        ("-d", False),
        ("-", False),
        ("", False),
        ("../4jX2Q347kNzJ9DC", False),
        ("4jX2Q347kNzJ9DC\n", False),
        ("4jX2Q347kNzJ9DC ALL", False),
        ("4" * 200, False),
        ("٣A1F72", False),
    ],
)
def test_form_of_a_queue_id(text: str, *, wanted: bool) -> None:
    assert postfix.is_queue_id(text) is wanted


@given(st.text())
def test_no_queue_id_is_a_path_an_option_or_a_word_of_postsuper(text: str) -> None:
    if postfix.is_queue_id(text):
        assert text.isascii()
        assert text.isalnum()
        assert text != "ALL"


def instance(**parameters: str) -> Instance:
    place = Path("/nowhere")
    return Instance("-", "postfix", place, place, place, MappingProxyType(parameters))


@pytest.mark.parametrize(
    ("names", "depth", "queue_id", "wanted"),
    [
        ("deferred, defer", "1", "4jX2Q347kNzJ9DC", ()),
        ("deferred, defer,HOLD", "2", "4jX2Q347kNzJ9DC", ("8", "E")),  # where Postfix 3.7 put them
        ("hold", "2", "4jX2Q346fJzJ9D6", ("8", "D")),
        ("hold", "1", "4jX2Q346fJzJ9D6", ("8",)),
        ("hold", "2", "3A1F72C4D2", ("3", "A")),
    ],
)
def test_hashed_directories(names: str, depth: str, queue_id: str, wanted: tuple[str, ...]) -> None:
    one = instance(hash_queue_names=names, hash_queue_depth=depth)
    assert queue_files.hashed(one, "hold", queue_id) == wanted


def test_instances_are_described_by_their_configuration(tmp_path: Path) -> None:
    out = PrivatePostfix(
        tmp_path / "out", main_cf={"multi_instance_name": "postfix-out", "maximal_queue_lifetime": "2"}
    )
    bulk = PrivatePostfix(tmp_path / "bulk", main_cf={"syslog_name": "bulk/x", "bounce_queue_lifetime": "36h"})
    both = f"{out.config_directory}, {bulk.config_directory}"
    primary = PrivatePostfix(
        tmp_path / "primary", main_cf={"multi_instance_directories": both, "relayhost": "$myhostname"}
    )
    found = postfix.instances(primary.config_directory)
    assert [(one.name, one.syslog_name) for one in found] == [
        ("-", "postfix"),
        ("postfix-out", "postfix-out"),
        ("-", "bulk"),
    ]
    assert [one.queue_directory for one in found] == [
        primary.queue_directory,
        out.queue_directory,
        bulk.queue_directory,
    ]
    assert found[0].parameters["relayhost"] == "mta1.sender-side.example"
    assert found[1].seconds("maximal_queue_lifetime") == 2 * 86400
    assert found[2].seconds("bounce_queue_lifetime") == 36 * 3600
    for name, wanted in [("postfix", 0), ("postfix-out", 1), ("bulk", 2)]:
        assert postfix.find(found, name) is found[wanted]
    with pytest.raises(PostfixError, match=r"'-' is ambiguous: .*primary.*bulk"):
        postfix.find(found, "-")
    with pytest.raises(PostfixError, match=r"'/etc/postfix' is unknown; known: postfix \(.*\), postfix-out"):
        postfix.find(found, "/etc/postfix")


def test_a_lone_instance_is_found_by_both_names(stopped: PrivatePostfix) -> None:
    found = postfix.instances(stopped.config_directory)
    assert postfix.find(found, "-") is postfix.find(found, "postfix")


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    wrong = PrivatePostfix(tmp_path, main_cf={"queue_run_delay": "soon"})
    with pytest.raises(PostfixError, match=r"main\.cf: queue_run_delay = soon: no time"):
        postfix.instances(wrong.config_directory)


def test_a_failed_command_says_all(tmp_path: Path) -> None:
    with pytest.raises(
        PostfixError, match=r"postconf -c .*nowhere.*: exit status 1: .*No such file.*; does that"
    ) as info:
        postfix.instances(tmp_path / "nowhere")
    assert "postfix.config_directory" in str(info.value)


def test_a_command_that_is_not_there_says_so(stopped: PrivatePostfix, tmp_path: Path) -> None:
    one = postfix.instances(stopped.config_directory)[0]
    nowhere = one._replace(parameters={**one.parameters, "command_directory": str(tmp_path)})
    with pytest.raises(PostfixError, match="is Postfix installed"):
        postfix.kick(nowhere, "qmgr", "D")
    with pytest.raises(PostfixError, match="is Postfix installed"):
        list(postfix.queued(nowhere))


def test_environment_cannot_name_another_configuration(
    stopped: PrivatePostfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert postfix.instances(stopped.config_directory)[0].queue_directory == stopped.queue_directory


def test_an_empty_queue_has_no_messages(stopped: PrivatePostfix) -> None:
    one = postfix.instances(stopped.config_directory)[0]
    one.queue_directory.joinpath("hold").mkdir(exist_ok=True)
    said = "#!/bin/sh\necho Mail queue is empty\n"
    assert list(postfix.queued(_with_program(one, "postqueue", said))) == []


def test_messages_come_as_they_are_printed(stopped: PrivatePostfix) -> None:
    """The reader has the first while the command still runs, and may go away."""
    one = postfix.instances(stopped.config_directory)[0]
    line = (
        '{"queue_name": "hold", "queue_id": "4jX2Q347kNzJ9DC", "arrival_time": 1795289499, "message_size": 355, '
        '"forced_expire": false, "sender": "a@snd.example", "recipients": [{"address": "b@gmail.com"}, '
        '{"address": "c@gmail.com", "delay_reason": "busy"}]}'
    )
    said = f"#!/bin/sh\necho '{line}'\nexec sleep 600\n"
    messages = postfix.queued(_with_program(one, "postqueue", said))
    assert next(messages) == QueuedMessage(
        "hold", "4jX2Q347kNzJ9DC", 1795289499.0, 355, "a@snd.example", (("b@gmail.com", ""), ("c@gmail.com", "busy"))
    )
    messages.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_listing_that_fails_is_no_short_listing(stopped: PrivatePostfix) -> None:
    one = postfix.instances(stopped.config_directory)[0]
    said = "#!/bin/sh\necho 'postqueue: fatal: mail system is down' >&2\nexit 69\n"
    with pytest.raises(PostfixError, match=r"exit status 69: .*mail system is down; start Postfix"):
        list(postfix.queued(_with_program(one, "postqueue", said)))


def test_a_listing_without_end_is_ended(stopped: PrivatePostfix, monkeypatch: pytest.MonkeyPatch) -> None:
    """What postqueue does while master throttles showq."""
    monkeypatch.setattr(postfix, "LISTING_TIMEOUT", 0.05)
    one = postfix.instances(stopped.config_directory)[0]
    with pytest.raises(PostfixError, match=r"postqueue .* -j: killed, for it did not end in time"):
        list(postfix.queued(_with_program(one, "postqueue", "#!/bin/sh\nexec sleep 600\n")))


@pytest.mark.parametrize("line", [b"{", b"{}", b'{"queue_name": "hold", "queue_id": "A", "recipients": 3}'])
def test_a_line_that_is_no_message_is_an_error(line: bytes) -> None:
    with pytest.raises(PostfixError, match="is no message as Postfix prints one"):
        postfix.read_queued(line)


def test_complaints_about_a_configuration(tmp_path: Path) -> None:
    wrong = PrivatePostfix(tmp_path, main_cf={"smtpd_recipient_restriction": "permit"})
    said = "\n".join(postfix.check(wrong.config_directory))
    assert "unused parameter: smtpd_recipient_restriction=permit" in said


def _with_program(one: Instance, name: str, script: str) -> Instance:
    """The instance, with a script in place of one of Postfix's commands."""
    directory = one.config_directory.parent / "bin"
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(script)
    program.chmod(0o755)
    return one._replace(parameters={**one.parameters, "command_directory": str(directory)})
