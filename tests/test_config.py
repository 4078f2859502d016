"""The configuration: what is read, and, a file in badconfig/ each, what is refused with which words."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sidecar import config
from sidecar.config import Config, ConfigError, Mode, Route, TransportConfig, load

BAD = sorted((Path(__file__).parent / "badconfig").glob("*.toml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_configuration_is_refused(path: Path) -> None:
    """The first line, a comment, is the message after the file's name; "..." at its end is any rest."""
    first = path.read_bytes().partition(b"\n")[0].decode().removeprefix("# ")
    with pytest.raises(ConfigError) as refused:
        load(path)

    said = str(refused.value)
    wanted, dots, _ = f"{path}: {first}".partition("...")
    assert said.startswith(wanted) if dots else said == wanted
    assert len(said) > len(wanted) or not dots


def test_there_are_bad_configurations() -> None:
    assert len(BAD) > 20


EVERYTHING = """
mode = "act"
runtime_directory = "/run/sidecar-2"

[log]
source = "journal"
syslog_names = ["out", "mta-2"]
host = "mx1"

[policy]
listen = ["unix:private/sidecar", "inet:127.0.0.1:10040"]
milters_quarantine = true

[store]
path = "/srv/sidecar"
redis = "redis://127.0.0.1:6379/0"
clickhouse = "http://127.0.0.1:8123"
retention_days = 7
audit_days = 400
hourly_days = 14
daily_days = 90
addresses = "hash"

[clickhouse]
database = "mail"
user = "sidecar"
password_file = "/etc/sidecar/clickhouse.password"
name = "mx1"
every_seconds = 60
prune = false
event_days = 30
hourly_days = 400
daily_days = 800

[events]
to = "/var/lib/sidecar/events.json"
kinds = ["attempt"]

[fleet]
host = "mx1.example.com"
prefix = "mail"
password_file = "/etc/sidecar/redis.password"

[postfix]
config_directory = "/etc/postfix-out"
transport_table = "lmdb:/var/lib/sidecar/transport"
reach = "sidecar@mx1.example.com"
ssh_config = "/etc/sidecar/ssh_config"

[rules]
directory = "/etc/sidecar/rules"

[web]
listen = "[::1]:8025"
password_file = "/etc/sidecar/page.passwords"
proxies = ["192.0.2.8", "2001:db8::/64"]
user_header = "Remote-User"
scrapers = ["192.0.2.9"]

[dns]
resolvers = ["127.0.0.53"]

[outside]
addresses = ["192.0.2.7"]
domains = ["example.com"]
selectors = ["s1._domainkey.example.com"]
ca_file = "/etc/ssl/our.pem"

[feeds.authentication]
enabled = false
active_minutes = 10
every_hours = 12
any_address = true
rotate_after_days = 90
policy_base = "http://127.0.0.1:8080/{domain}"
test_name = "example.com"

[feeds.blocklists]
enabled = false
spamhaus_key = "/etc/sidecar/spamhaus.key"
abusix_key = "/etc/sidecar/abusix.key"
without = ["uceprotect3"]
also = ["senderscore_bl"]
lists = "/etc/sidecar/lists.toml"

[feeds.senderscore]
enabled = true
zone = "score.example"
every_hours = 12

[feeds.google_postmaster]
enabled = true
credentials = "/etc/sidecar/google.json"
client = "/etc/sidecar/google-client.json"
subject = "postmaster@example.com"
scopes = ["https://www.googleapis.com/auth/postmaster"]
base_url = "http://127.0.0.1:8080"
token_endpoint = "http://127.0.0.1:8080/token"
authorize_endpoint = "http://127.0.0.1:8080/auth"
redirect_uri = "http://127.0.0.1:8402/"
every_hours = 12
days = 14
domains_max = 50
v1 = true

[feeds.snds]
enabled = true
token_file = "/etc/sidecar/snds.token"
data_link = "/etc/sidecar/snds-data.link"
status_link = "/etc/sidecar/snds-status.link"
networks = ["192.0.2.0/24"]
attested = "2026-06-20"
base_url = "http://127.0.0.1:8080/snds"
token_endpoint = "http://127.0.0.1:8080/token"
authorize_endpoint = "http://127.0.0.1:8080/authorize"
client_id = "ours"
scope = "ours/.default offline_access"
redirect_uri = "http://localhost:8403"
every_hours = 6

[feeds.spamhaus_sia]
enabled = true
username = "postmaster"
password = "/etc/sidecar/sia.password"
lists = ["cidr/ALL", "ip/SBL"]
base_url = "http://127.0.0.1:8080"
every_hours = 12

[authentication]
hold = true
domains = ["example.com"]
requirements = ["DKIM"]

[report_mail]
maildir = ["/var/mail/reports/"]
mbox = ["/var/mail/dmarc"]
mbox_emptied = true
every_minutes = 2
authserv_ids = ["mx.example.com"]
reporters = ["fbl.example.net"]
own_headers = ["X-Campaign-ID"]
verp_delimiters = "-="
recipients = "address"

[[report_mail.imap]]
host = "imap.example.com"
user = "reports"
password_file = "/etc/sidecar/imap.password"
port = 143
tls = "starttls"
folder = "Reports"

[[seed]]
address = "seed@gmx.example"
provider = "gmx"
spam = ["Spamverdacht"]
imap = { host = "imap.gmx.example", user = "seed@gmx.example", password_file = "/etc/sidecar/seed.password" }

[seedtest]
sender = "seedtest@example.com"
message = "/etc/sidecar/seed.eml"
every_hours = 6
transports = ["lane-01"]
deadline_minutes = 30
smtp = "127.0.0.1:2525"
sendmail = "/usr/lib/sendmail"

[suppression]
enabled = false
storage = "hash"
provisional_minutes = 15
outage_recipients = 20
outage_share = 0.5
discard = ["newsletter"]
transactional = ["shop"]
complaints = "global"
inactive_days = 365
inactive_deliveries = 50

[ingest]
listen = "127.0.0.1:8026"
token_file = "/etc/sidecar/ingest.token"
per_minute = 600

[subqueues]
hold_max_hours = 12
failsafe_after_minutes = 7.5
scale = 60
lane = ["google/rate-ip"]
pushback = ["yahoo"]

[report]
campaign_headers = ["X-Mailing"]
segment_headers = ["X-Part"]
schedule = "weekly"
at = "06:30"
to = ["postmaster@example.com"]
sender = "reports@example.com"
channel = "ops"

[alerts]
enabled = false
owner = "postmaster"
host = "mx7.example.com"
runbooks = "https://wiki.example/sidecar/"
page = "https://sidecar.example/"
digest = "07:00"
without = ["tls"]

[[channel]]
name = "ops"
kind = "slack"
severities = ["critical"]
url_file = "/etc/sidecar/slack.url"

[[condition]]
name = "many-bounces-at-google"
when = "measure = hard-bounces.1h and object = google and share > 2%"

[[transport]]
name = "out-comcast"
maxproc = 25
bind_address = "192.0.2.7"
bind_address6 = "2001:db8::7"
helo = "out.example.com"
concurrency = 5
recipients = 10
rate_delay_seconds = 1
options = ["smtp_tls_security_level=encrypt"]
[hygiene]
syntax = "reject"
null_mx = "reject"
no_host = "warn"
typo = "warn"
disposable = "reject"
role = "warn"
typo_file = "/etc/sidecar/typos"
disposable_file = "/etc/sidecar/disposable"
role_file = "/etc/sidecar/roles"
control_domains = ["gmail.com"]
verify_domains = ["yahoo.com"]

[[hygiene.scope]]
tenant = "newsletter"
role = "reject"

[[quota]]
name = "tenant-day"
per = "tenant"
count = "messages"
limit = 50_000
within = "day"
burst = 10_000
warn = 0.8
defer = false
where = 'policy_context = "submission"'
keys = 1000
fleet = true

[[route]]
provider = "google"
transport = "lane-01"

[[route]]
provider = "yahoo"
transport = "lane-02"
maxproc = 5
options = ["smtp_bind_address=192.0.2.7"]

[[route]]
name = "bulk"
when = "tenant = newsletter and size > 100k"
transport = "lane-02"

[[pool]]
name = "bulk"
transports = [{ transport = "ip-1" }, { transport = "ip-2", weight = 2.5, address = "192.0.2.8" }]
sticky = "sending-domain"
otherwise = "lane-01"

[[warm_up]]
transport = "ip-2"
started = "2026-11-22"
start_per_day = 200
until_per_day = 50000
growth = 1.3
caps = [{ provider = "google", per_day = 5000 }]
fleet = true

[[canary]]
name = "new-template"
when = "tenant = newsletter"
transport = "pool:bulk"
share = 0.1
until = 500
loss = 0.01

[[react]]
name = "doubtful"
signal = "reputation"
do = "isolate"
to = "lane-01"
providers = ["google"]
only = ["example.com"]
return_hours = 48

[[react]]
name = "listed"
signal = "listed"
do = "leave-pool"
requeue = true
"""


def test_every_setting_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text(EVERYTHING)
    read = load(path)

    assert read.mode is Mode.ACT
    assert read.log.syslog_names == ("out", "mta-2")
    assert read.policy.listen == ("unix:private/sidecar", "inet:127.0.0.1:10040")
    assert (read.subqueues.hold_max_hours, type(read.subqueues.hold_max_hours)) == (12.0, float)
    assert read.route == (
        Route("lane-01", "google"),
        Route("lane-02", "yahoo", maxproc=5, options=("smtp_bind_address=192.0.2.7",)),
        Route("lane-02", when="tenant = newsletter and size > 100k", name="bulk"),
    )
    assert read.transport == (
        TransportConfig(
            "out-comcast",
            25,
            "192.0.2.7",
            "2001:db8::7",
            "out.example.com",
            5,
            10,
            1,
            ("smtp_tls_security_level=encrypt",),
        ),
    )
    default = flat(dataclasses.asdict(Config()))
    assert [name for name, value in flat(dataclasses.asdict(read)) if (name, value) in default] == []


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(key, value) of every setting."""
    pairs = []
    for name, value in settings.items():
        pairs += flat(value, f"{name}.") if isinstance(value, dict) else [(prefix + name, repr(value))]
    return pairs


def test_the_text_above_has_every_setting() -> None:
    missing = {name for name, _ in flat(dataclasses.asdict(Config()))} - {
        name for name, _ in flat(tomllib.loads(EVERYTHING))
    }
    assert not missing


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.touch()

    assert load(path) == Config()
    assert Config().mode is Mode.OBSERVE


def test_the_places_follow_from_two_directories(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text(EVERYTHING)
    read = load(path)

    assert read.control_socket == Path("/run/sidecar-2/control")
    assert read.helper_socket == Path("/run/sidecar-2/helper")
    assert read.core_database == Path("/srv/sidecar/core.db")
    assert read.held_record == Path("/srv/sidecar/held.record")


def test_without_a_file_in_the_default_place_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "sidecar.toml")
    assert load(None) == Config()

    (tmp_path / "sidecar.toml").write_text('mode = "act"\n')
    assert load(None).mode is Mode.ACT


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_was_named_must_be_readable(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError, match=rf"^{path}: cannot be read: "):
        load(path)
