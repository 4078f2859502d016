"""Postfix's own commands, and what they print.

The only place that runs postconf, postqueue, postsuper, postkick and postfix; what a queue id looks
like stands here, too, because every one of these commands is given some.
"""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 500
"""Ids that one postsuper is given: some 25 ms of renames, so that nothing else waits long for its turn."""

TIMEOUT = 60.0
"""Seconds after which a Postfix command is taken for stuck."""

LISTING_TIMEOUT = 300.0
"""Seconds for a listing of the queue; 500,000 messages take about ten."""

# postconf is found by the path that a package installs it in; the others by command_directory.
_SBIN = "/usr/sbin"
_PATH = f"{_SBIN}:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin:/bin"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

TIMES = {
    "maximal_queue_lifetime": "d",
    "bounce_queue_lifetime": "d",
    "delay_warning_time": "h",
    "minimal_backoff_time": "s",
    "maximal_backoff_time": "s",
    "queue_run_delay": "s",
}
"""Time parameters that we read, with the unit that a bare number has (postconf(5))."""

_TEXTS = (
    "address_verify_sender",
    "always_bcc",
    "command_directory",
    "content_filter",
    "double_bounce_sender",
    "enable_long_queue_ids",
    "hash_queue_depth",
    "hash_queue_names",
    "mail_owner",
    "mail_version",
    "maillog_file",
    "recipient_bcc_maps",
    "relayhost",
    "sender_bcc_maps",
    "sender_dependent_relayhost_maps",
    "soft_bounce",
)
_EXPAND = {True: ("-x",), False: ()}
_PLACES = ("config_directory", "queue_directory", "data_directory", "multi_instance_directories")
_NAMES = ("multi_instance_name", "syslog_name")

# mail_queue.h: 5 hex digits of microseconds and the inode in hex; or seconds (6 or more digits) and
# microseconds (4 digits) in base 52, "z", and the inode in base 51. No vowels, so that no words appear.
_QUEUE_ID = re.compile(
    r"[0-9A-F]{6,21}"
    r"|[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz]{10,20}z[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxy]{1,14}"
)


class PostfixError(Exception):
    """A Postfix command failed: says the command, its exit status, its words and what to do."""


class Instance(NamedTuple):
    """One Postfix instance, as its own configuration describes it."""

    name: str
    """`multi_instance_name`, "-" where there is none: the name that `postmulti -l` shows."""
    syslog_name: str
    """First element of the tag of its log lines, "postfix" as a rule."""
    config_directory: Path
    queue_directory: Path
    data_directory: Path
    parameters: Mapping[str, str]
    """The few that we need; times in seconds."""

    def seconds(self, name: str) -> float:
        """A time parameter, in seconds."""
        return float(self.parameters[name])

    def command(self, name: str) -> str:
        """Path of a Postfix command."""
        return f"{self.parameters['command_directory']}/{name}"


class QueuedMessage(NamedTuple):
    """One message as `postqueue -j` prints it."""

    queue_name: str
    """incoming, active, deferred, hold, maildrop."""
    queue_id: str
    arrival_time: float
    message_size: int
    sender: str
    """"MAILER-DAEMON" for the null sender (showq.c)."""
    recipients: tuple[tuple[str, str], ...]
    """(address, delay_reason) of those not yet done; the reason "" where there is none."""


def is_queue_id(text: str) -> bool:
    """Whether `text` has the form of a short or long queue id (mail_queue.h)."""
    return _QUEUE_ID.fullmatch(text) is not None


def seconds(text: str, unit: str) -> float:
    """Read a time parameter: "5d"; a bare number counts in `unit`.

    Raises ValueError.
    """
    number, given = (text[:-1], text[-1]) if text and text[-1] in _UNITS else (text, unit)
    return float(int(number) * _UNITS[given])


def instances(config_directory: Path) -> list[Instance]:
    """The instance of `config_directory` and those of its `multi_instance_directories`.

    Raises PostfixError.
    """
    primary, others = _instance(config_directory)
    return [primary, *(_instance(Path(other))[0] for other in others)]


def find(known: Sequence[Instance], name: str) -> Instance:
    """The instance called `name`: by syslog name, as the log has it, else by instance name.

    Raises PostfixError where there is none, or more than one.
    """
    for field in ("syslog_name", "name"):
        found = [instance for instance in known if getattr(instance, field) == name]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(str(instance.config_directory) for instance in found)
            raise PostfixError(f"instance {name!r} is ambiguous: {places}; give each its own syslog_name")
    names = ", ".join(f"{instance.syslog_name} ({instance.config_directory})" for instance in known)
    raise PostfixError(f"instance {name!r} is unknown; known: {names}")


def parameters(config_directory: Path, *names: str, expand: bool = True) -> dict[str, str]:
    """Values in effect of some parameters, or of all where none is named; unknown ones are left out.

    `expand`: with `$name` replaced (postconf -x). Raises PostfixError.
    """
    return dict(_settings(_postconf(config_directory, *_EXPAND[expand], *names)))


def own_settings(config_directory: Path, *, expand: bool = False) -> dict[str, str]:
    """What main.cf itself sets, names of its own included (postconf -n). Raises PostfixError."""
    return dict(_settings(_postconf(config_directory, *_EXPAND[expand], "-n")))


def services(config_directory: Path) -> list[str]:
    """The entries of master.cf, one line each (postconf -M). Raises PostfixError."""
    return _postconf(config_directory, "-M").splitlines()


def service_settings(config_directory: Path, *, expand: bool = False) -> dict[str, str]:
    """The `-o` overrides of master.cf as service/type/parameter -> value (postconf -P). Raises PostfixError."""
    return dict(_settings(_postconf(config_directory, *_EXPAND[expand], "-P")))


def edit(config_directory: Path, flag: str, *arguments: str) -> None:
    """Change main.cf or master.cf through postconf: `flag` is -e, -X, -Me, -MX, -Pe or -PX.

    Raises PostfixError.
    """
    _postconf(config_directory, flag, *arguments)


def table_types(config_directory: Path) -> frozenset[str]:
    """Types of tables that this Postfix knows (postconf -m). Raises PostfixError."""
    return frozenset(_postconf(config_directory, "-m").split())


def looked_up(config_directory: Path, key: str, table: str) -> str:
    """What a table (type:name) has for a key, "" for nothing (postmap -q). Raises PostfixError."""
    command = ["postmap", "-c", str(config_directory), "-q", key, table]
    asked = _execute(command)
    if asked.returncode and asked.stderr.strip():
        raise PostfixError(_failure(command, asked.returncode, asked.stderr))
    return asked.stdout.strip()


def check(config_directory: Path) -> list[str]:
    """Complaints of `postfix check` and of postconf, each once; none when all is well."""
    complaints: list[str] = []
    for command in (["postconf", "-c", str(config_directory), flag] for flag in ("-n", "-Mf", "-Pf")):
        complaints += _execute(command).stderr.splitlines()
    checked = _execute(["postfix", "-c", str(config_directory), "check"])
    complaints += checked.stderr.splitlines()
    if checked.returncode and not checked.stderr.strip():
        complaints.append(f"postfix check: exit status {checked.returncode}")
    said = (line.strip().removeprefix(f"{_SBIN}/") for line in complaints)
    return list(dict.fromkeys(line for line in said if line))


def queued(instance: Instance) -> Iterator[QueuedMessage]:
    """All messages in the queues of an instance (postqueue -j), one at a time as they are printed.

    Raises PostfixError, also when the listing has no end within LISTING_TIMEOUT.
    """
    command = [instance.command("postqueue"), "-c", str(instance.config_directory), "-j"]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(), stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise PostfixError(f"{command[0]}: {error.strerror}; is Postfix installed?") from error
    # Where showq cannot start, master throttles it and postqueue waits for ever.
    limit = threading.Timer(LISTING_TIMEOUT, process.kill)
    limit.daemon = True
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        limit.start()
        try:
            for line in process.stdout:
                if line.startswith(b"{"):  # "Mail queue is empty" is no message
                    yield read_queued(line)
            words = process.stderr.read().decode(errors="replace")
            if process.wait():
                raise PostfixError(_failure(command, process.returncode, words))
        finally:
            limit.cancel()
            process.kill()  # where the reader went away before the end


def read_queued(line: bytes) -> QueuedMessage:
    """Read one line of `postqueue -j`. Raises PostfixError."""
    try:
        entry: dict[str, Any] = json.loads(line.decode(errors="surrogateescape"))
        recipients = tuple((one["address"], one.get("delay_reason", "")) for one in entry["recipients"])
        return QueuedMessage(
            entry["queue_name"],
            entry["queue_id"],
            float(entry["arrival_time"]),
            int(entry["message_size"]),
            entry["sender"],
            recipients,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PostfixError(f"postqueue -j: {line[:200]!r} is no message as Postfix prints one: {error!r}") from error


def hold(instance: Instance, ids: Sequence[str]) -> list[str]:
    """`postsuper -h`: put messages on hold; gives those that Postfix says it did. Raises PostfixError."""
    return _postsuper(instance, "-h", ids, "placed on hold")


def release(instance: Instance, ids: Sequence[str]) -> list[str]:
    """`postsuper -H`: from hold to deferred; gives those that Postfix says it did. Raises PostfixError."""
    return _postsuper(instance, "-H", ids, "released from hold")


def requeue(instance: Instance, ids: Sequence[str]) -> list[str]:
    """`postsuper -r`, from hold only, under new ids; gives those that Postfix says it did. Raises PostfixError."""
    return _postsuper(instance, "-r", ids, "requeued", "hold")


def kick(instance: Instance, service: str, request: str) -> None:
    """`postkick public SERVICE REQUEST`: qmgr D scans the deferred queue, pickup W the maildrop.

    Raises PostfixError, also where Postfix does not run.
    """
    _run(instance, "postkick", "public", service, request)


def reload(instance: Instance) -> None:
    """`postfix reload`: a new queue manager starts from the files alone. Raises PostfixError."""
    _run(instance, "postfix", "reload")


def _instance(config_directory: Path) -> tuple[Instance, list[str]]:
    """An instance and the directories of the others that it names."""
    values = parameters(config_directory, *_PLACES, *_NAMES, *_TEXTS, *TIMES)
    missing = [name for name in (*_PLACES, *TIMES) if name not in values]
    if missing:
        raise PostfixError(f"postconf -c {config_directory}: says nothing of {missing[0]}; is this a Postfix 3.x?")
    chosen = {name: values.get(name, "") for name in _TEXTS}
    for name, unit in TIMES.items():
        try:
            chosen[name] = f"{seconds(values[name], unit):.0f}"
        except ValueError as error:
            raise PostfixError(
                f"{config_directory}/main.cf: {name} = {values[name]}: no time; wanted a number and s, m, h, d or w"
            ) from error
    instance = Instance(
        name=values.get("multi_instance_name") or "-",
        syslog_name=values.get("syslog_name", "postfix").partition("/")[0],
        config_directory=config_directory,
        queue_directory=Path(values["queue_directory"]),
        data_directory=Path(values["data_directory"]),
        parameters=chosen,
    )
    return instance, values["multi_instance_directories"].replace(",", " ").split()


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Lines `name = value` of postconf."""
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), value.strip()


def _postsuper(instance: Instance, flag: str, ids: Sequence[str], word: str, *queues: str) -> list[str]:
    """Run postsuper over `ids` in batches; the ids of its lines `postsuper: ID: WORD`, in the order given.

    With `maillog_file` and Postfix stopped it dies of its first log line, with that message done: nobody
    writes the log for it, and it may not itself. So a run that failed but did something is followed by another.
    """
    done: set[str] = set()
    for start in range(0, len(ids), BATCH):
        left = list(ids[start : start + BATCH])
        while left:
            command = [instance.command("postsuper"), "-c", str(instance.config_directory), flag, "-", *queues]
            ended = _execute(command, "".join(f"{queue_id}\n" for queue_id in left))
            said = [line.split(": ") for line in ended.stderr.splitlines()]
            now_done = {parts[1] for parts in said if len(parts) == 3 and parts[2] == word}
            if ended.returncode and not now_done:
                raise PostfixError(_failure(command, ended.returncode, ended.stderr))
            done |= now_done
            left = [one for one in left if one not in now_done] if ended.returncode else []
    return [queue_id for queue_id in ids if queue_id in done]


def _run(instance: Instance, name: str, *arguments: str) -> None:
    command = [instance.command(name), "-c", str(instance.config_directory), *arguments]
    done = _execute(command)
    if done.returncode:
        raise PostfixError(_failure(command, done.returncode, done.stderr))


def _postconf(config_directory: Path, *arguments: str) -> str:
    command = ["postconf", "-c", str(config_directory), *arguments]
    done = _execute(command)
    if done.returncode:
        raise PostfixError(_failure(command, done.returncode, done.stderr))
    return done.stdout


def _execute(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            env=_environment(),
            timeout=TIMEOUT,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            restore_signals=False,  # qmgr may close before postkick has written its last byte: no SIGPIPE then
        )
    except OSError as error:
        raise PostfixError(f"{command[0]}: {error.strerror}; is Postfix installed?") from error
    except ValueError as error:  # a NUL in what a client or a log line said
        raise PostfixError(f"{command[0]}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise PostfixError(
            f"{' '.join(command)}: no end after {TIMEOUT:g} s; see the mail log for what it waits for"
        ) from error


def _environment() -> dict[str, str]:
    """What a Postfix command may inherit from us: nothing that could point it at another configuration."""
    kept = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
    return {"PATH": _PATH, "LC_ALL": "C", **kept}


_REMEDIES = (
    ("No such file or directory", "does that directory exist and hold a main.cf? postfix.config_directory names it"),
    ("superuser", "run this as root: only root may change the queue"),
    ("mail system is down", "start Postfix, or ask again when it runs"),
    ("not running", "start Postfix, or ask again when it runs"),
    ("Permission denied", "run this as root, or let the user read what is named"),
)
"""A word in a failed command's complaint -> what to do about it; the first match counts."""


def _failure(command: Sequence[str], status: int, words: str) -> str:
    said = " / ".join(line.strip() for line in words.splitlines() if line.strip()) or "nothing said"
    if status == -signal.SIGKILL:
        return f"{' '.join(command)}: killed, for it did not end in time; see the mail log for what it waits for"
    remedy = next((what for word, what in _REMEDIES if word in words), "run it by hand, then see the mail log")
    return f"{' '.join(command)}: exit status {status}: {said}; {remedy}"
