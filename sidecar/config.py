"""Every setting, its default and its meaning, and the reading of the one TOML file that holds them."""

import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from policies.hygiene import Level
from policies.pools import Sticky
from policies.quota import Counted, Per, Within
from policies.reacting import Do, Signal
from policies.stored_address import AddressForm
from policies.timetable import Schedule
from sidecar.toml_table import ConfigError, read_table

__all__ = ["DEFAULT_PATH", "NOWHERE", "Config", "ConfigError", "Mode", "Route", "load"]

DEFAULT_PATH = Path("/etc/sidecar/sidecar.toml")
NOWHERE = "nowhere"
"""As postfix.reach: there is no way to the queue."""


class Mode(StrEnum):
    OBSERVE = "observe"
    """Say what would be done; hands off the queue. The default of a fresh installation."""
    ACT = "act"


@dataclass(frozen=True, slots=True)
class LogConfig:
    source: str = "/var/log/mail.log"
    """Path of a file, "journal", or "-" for standard input."""
    syslog_names: tuple[str, ...] = ()
    """Instances whose `syslog_name` does not begin with "postfix"."""
    host: str = ""
    """Only lines of this host, as they name it: for a log that many hosts write to. Empty: all lines."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    listen: tuple[str, ...] = ("unix:private/sidecar",)
    """unix:PATH (below the Postfix queue directory unless absolute) or inet:ADDRESS:PORT."""
    milters_quarantine: bool = False
    """A milter may quarantine: arriving mail is then never answered HOLD."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    path: str = "/var/lib/sidecar"
    """Directory of core.db, outside.db and the helper's record."""
    redis: str = ""
    """Where the hosts of a fleet share their sub-queues, as rediss://sidecar@redis.example.com/0; see [fleet]."""
    clickhouse: str = ""
    """http://HOST:8123 of a ClickHouse server that keeps the history of many hosts; empty: none."""
    retention_days: int = 30
    """How long single events stay."""
    audit_days: int = 90
    """How long it stays known what was done to the queue, to which messages, why and by whom; at least 2."""
    hourly_days: int = 60
    """How long sums by the hour stay."""
    daily_days: int = 730
    """How long sums by the day stay."""
    addresses: AddressForm = AddressForm.FULL
    """How events keep the addresses of senders and recipients. Mail on hold keeps them as they are until it leaves."""


@dataclass(frozen=True, slots=True)
class ClickHouseConfig:
    """About the server of store.clickhouse."""

    database: str = "sidecar"
    user: str = ""
    """Empty: the server's user "default"."""
    password_file: str = ""
    name: str = ""
    """What this host's store is called there, no other's name; empty: alerts.host, else the host's name."""
    every_seconds: float = 10.0
    """How often events are sent; with many hosts at least half a second for each."""
    prune: bool = True
    """Drop there what is older than the days below; one host of a fleet is enough."""
    event_days: int = 90
    hourly_days: int = 90
    daily_days: int = 730


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """Events as lines of JSON for a central log store."""

    to: str = ""
    """"stdout", "syslog" or the path of a file; empty: nowhere."""
    kinds: tuple[str, ...] = ("attempt", "message", "change")


@dataclass(frozen=True, slots=True)
class FleetConfig:
    host: str = ""
    """What the fleet calls this host, a name that no other has; empty: its host name."""
    prefix: str = "sidecar"
    """Stands before each key of ours in the store, so that two fleets can use one."""
    password_file: str = ""
    """File with the password of the store's user, rather than have it in store.redis."""


@dataclass(frozen=True, slots=True)
class PostfixConfig:
    config_directory: str = "/etc/postfix"
    """The primary instance; those of multi_instance_directories come with it."""
    reach: str = ""
    """[USER@]HOST, for ssh: the queue is that host's, whose log lines log.host names. "nowhere": there is no way to it, and
    it is only observed. Empty: the queue is this host's.
    """
    ssh_config: str = ""
    """File in the format of ssh_config(5), with key, port and known hosts for postfix.reach; empty: ssh's own."""
    transport_table: str = ""
    """A table that core keeps for transport_maps, as lmdb:/var/lib/sidecar/transport: routes that ask of nothing but the
    recipient's domain and provider, for mail that no policy answer routes. Empty: none.
    """


@dataclass(frozen=True, slots=True)
class RulesConfig:
    directory: str = ""
    """A directory of the admin's own provider rules; same format, asked first."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    listen: str = "127.0.0.1:8025"
    """ADDRESS:PORT; one that others can reach wants password_file or proxies."""
    password_file: str = ""
    """Lines NAME:HASH as `sidecar password NAME` prints them: who may see the page."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of reverse proxies that say who the user is; nobody else's word is taken for it."""
    user_header: str = "X-Forwarded-User"
    """Header in which they say it."""
    scrapers: tuple[str, ...] = ()
    """Addresses or networks that may read /metrics without a password."""


@dataclass(frozen=True, slots=True)
class DnsConfig:
    resolvers: tuple[str, ...] = ()
    """Name servers for our own look-ups, ADDRESS or ADDRESS:PORT; empty: those of resolv.conf."""


@dataclass(frozen=True, slots=True)
class OutsideConfig:
    addresses: tuple[str, ...] = ()
    """Addresses that our mail leaves from, beside those of Postfix's configuration (behind NAT: the public ones)."""
    domains: tuple[str, ...] = ()
    """Sending domains to watch, beside those that sent in the last day."""
    selectors: tuple[str, ...] = ()
    """Where keys are that our mail is signed with, as s1._domainkey.example.com, beside those that OpenDKIM or rspamd
    of this host say they use.
    """
    ca_file: str = ""
    """Certificates that HTTPS feeds and channels are checked against; empty: the usual ones."""


@dataclass(frozen=True, slots=True)
class SenderScoreConfig:
    enabled: bool = False
    """Only for a resolver that is registered with MyValidity."""
    zone: str = "score.senderscore.com"
    every_hours: float = 24.0


@dataclass(frozen=True, slots=True)
class BlocklistsConfig:
    enabled: bool = True
    spamhaus_key: str = ""
    """File with the key of Spamhaus' DQS; without it the public mirrors are asked."""
    abusix_key: str = ""
    """File with the key of Abusix Mail Intelligence; without it that list is not asked."""
    without: tuple[str, ...] = ()
    """Ids of lists not to ask."""
    also: tuple[str, ...] = ()
    """Ids of lists to ask that are off by themselves, for they want to know the resolver first."""
    lists: str = ""
    """File with more lists, in the format of ours."""


@dataclass(frozen=True, slots=True)
class GooglePostmasterConfig:
    enabled: bool = False
    credentials: str = ""
    """JSON file: a service account's key, or what `sidecar login google-postmaster` wrote; empty:
    google-postmaster.json in the directory of the stores.
    """
    client: str = ""
    """JSON file of an OAuth client of the kind "desktop app", for `sidecar login google-postmaster` alone."""
    subject: str = ""
    """For a service account with domain-wide delegation: the user that it acts for."""
    scopes: tuple[str, ...] = (
        "https://www.googleapis.com/auth/postmaster.domain",
        "https://www.googleapis.com/auth/postmaster.traffic.readonly",
    )
    """The two read-only halves; with one of them the other half is refused."""
    base_url: str = "https://gmailpostmastertools.googleapis.com"
    token_endpoint: str = ""
    """Empty: that of the credentials, else Google's."""
    authorize_endpoint: str = "https://accounts.google.com/o/oauth2/v2/auth"
    redirect_uri: str = "http://127.0.0.1:8401/"
    every_hours: float = 24.0
    days: int = 7
    """Asked about each time; late days are filled in."""
    domains_max: int = 1000
    """Of the account's domains, those that send most; beyond it nothing is asked about them."""
    v1: bool = False
    """Ask the old interface too, for the reputations that the new one has not; as long as it is there."""


@dataclass(frozen=True, slots=True)
class SndsConfig:
    enabled: bool = False
    token_file: str = ""
    """Where `sidecar login snds` keeps the login; empty: snds.token in the directory of the stores. The outside
    process must be able to write it, for its content changes with each use.
    """
    data_link: str = ""
    """File with the link to the daily data, key and all; with this or the next one no login is used."""
    status_link: str = ""
    """File with the link to the state of addresses."""
    networks: tuple[str, ...] = ()
    """Networks that the account was granted: of their addresses no mention means not blocked."""
    attested: str = ""
    """Day of the last attestation of the networks, as 2026-06-20: they are lost after ten months."""
    base_url: str = "https://substrate.office.com/ip-domain-management-snds"
    token_endpoint: str = "https://login.microsoftonline.com/consumers/oauth2/v2.0/token"  # noqa: S105  # an address
    authorize_endpoint: str = "https://login.microsoftonline.com/consumers/oauth2/v2.0/authorize"
    client_id: str = "a53a6cc1-a1cd-46f7-a4aa-281cdabec33c"
    """Of the portal itself, as other programs use it; Microsoft documents none."""
    scope: str = "a53a6cc1-a1cd-46f7-a4aa-281cdabec33c/.default offline_access openid profile"
    redirect_uri: str = "http://localhost:8400"
    every_hours: float = 4.0


@dataclass(frozen=True, slots=True)
class SpamhausSiaConfig:
    enabled: bool = False
    username: str = ""
    password: str = ""
    """File with the password."""
    lists: tuple[str, ...] = ("cidr/ALL",)
    """How addresses are looked up, and in which data set: cidr/ALL, ip/SBL."""
    base_url: str = "https://api.spamhaus.org"
    every_hours: float = 24.0


@dataclass(frozen=True, slots=True)
class AuthenticationConfig:
    enabled: bool = True
    active_minutes: float = 5.0
    """How often domains are looked at that sent in the last hour."""
    every_hours: float = 24.0
    """How often all others are."""
    any_address: bool = False
    """Each domain leaves from some of our addresses only, so that its SPF record need not name all of them."""
    rotate_after_days: float = 180.0
    """Age from which a DKIM key should be replaced, counted from when it was first seen here."""
    policy_base: str = "https://mta-sts.{domain}"
    """Where MTA-STS policies are fetched; {domain} stands for the domain."""
    test_name: str = "."
    """A name with NS records in any DNS that works: without an answer nothing is believed; empty: not asked."""


@dataclass(frozen=True, slots=True)
class HoldConfig:
    hold: bool = False
    """Hold mail whose authentication broke while it sends, until it is repaired; else it is an alert alone."""
    domains: tuple[str, ...] = ()
    """Domains, with all below them, of which mail is held so where `hold` is off."""
    requirements: tuple[str, ...] = ("SPF", "DKIM")
    """What must be broken: SPF, DKIM, DMARC_POLICY."""


@dataclass(frozen=True, slots=True)
class FeedsConfig:
    authentication: AuthenticationConfig = field(default_factory=AuthenticationConfig)
    blocklists: BlocklistsConfig = field(default_factory=BlocklistsConfig)
    senderscore: SenderScoreConfig = field(default_factory=SenderScoreConfig)
    google_postmaster: GooglePostmasterConfig = field(default_factory=GooglePostmasterConfig)
    snds: SndsConfig = field(default_factory=SndsConfig)
    spamhaus_sia: SpamhausSiaConfig = field(default_factory=SpamhausSiaConfig)


class ImapTls(StrEnum):
    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"
    """For a server on this machine alone: the password goes in the clear."""


class RecipientForm(StrEnum):
    HASH = "hash"
    """SHA-256 of the address in lower case."""
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class ImapConfig:
    host: str
    user: str
    password_file: str
    port: int = 993
    tls: ImapTls = ImapTls.TLS
    folder: str = "INBOX"


@dataclass(frozen=True, slots=True)
class ReportMailConfig:
    maildir: tuple[str, ...] = ()
    """Maildirs to take report mail from; what was taken moves from new/ to cur/."""
    mbox: tuple[str, ...] = ()
    mbox_emptied: bool = False
    """Empty an mbox when all that was in it is stored; else it stays as it is."""
    imap: tuple[ImapConfig, ...] = ()
    """[[report_mail.imap]]: host, user, password_file, port, tls, folder."""
    every_minutes: float = 5.0
    """How often IMAP folders are looked into; files every ten seconds."""
    authserv_ids: tuple[str, ...] = ()
    """Names under which our own servers write Authentication-Results; without one no report is trusted."""
    reporters: tuple[str, ...] = ()
    """Domains whose reports are believed beside those of the large providers; not one that gives out mailboxes."""
    own_headers: tuple[str, ...] = ()
    """Header fields of ours that name a campaign or a message, as X-Campaign-ID; first one first."""
    verp_delimiters: str = "+="
    """As default_verp_delimiters of Postfix."""
    recipients: RecipientForm = RecipientForm.HASH
    """How recipients of complaints and bounces are stored."""


@dataclass(frozen=True, slots=True)
class SeedConfig:
    address: str
    provider: str
    """Whose mailbox it is, as reports call it: google, yahoo, gmx."""
    imap: ImapConfig
    """host, user, password_file, port, tls; folder: where mail arrives."""
    spam: tuple[str, ...] = ()
    """Folders for spam, as the server spells them; empty: the one that it marks as \\Junk, else those called so."""


@dataclass(frozen=True, slots=True)
class SeedTestConfig:
    sender: str = ""
    """Address that test mail comes from; its domain is one that such mail comes from otherwise."""
    message: str = ""
    """File with a message as it would be sent; empty: a short one that says what it is."""
    every_hours: float = 0.0
    """How often the outside process tests by itself; 0: never."""
    transports: tuple[str, ...] = ()
    """Transports of master.cf, each tested by itself; empty: mail goes as Postfix sends all other."""
    deadline_minutes: float = 15.0
    """Mail that is not there by then is missing."""
    smtp: str = "127.0.0.1:25"
    """Where test mail is handed in without a chosen transport, as other mail is; empty: through sendmail."""
    sendmail: str = "/usr/sbin/sendmail"


@dataclass(frozen=True, slots=True)
class SubqueuesConfig:
    hold_max_hours: float = 24.0
    """No message is held longer than this, nor longer than half its lifetime in the queue."""
    failsafe_after_minutes: float = 15.0
    """Without a heartbeat of core for so long, `sidecar failsafe` releases everything of ours."""
    scale: float = 1.0
    """Divides every pause, window and step: for labs, where an hour must pass in a minute."""
    lane: tuple[str, ...] = ()
    """Rules (google/rate-ip), or providers (google), by which new mail of a key goes over a slow lane instead of hold."""
    pushback: tuple[str, ...] = ()
    """Rules, or providers, by which clients are told to try again later instead; for clients that are mail servers."""


class SuppressionStorage(StrEnum):
    PLAIN = "plain"
    """Addresses and the lines that are evidence stand in the store as they are."""
    HASH = "hash"
    """Only a keyed digest of the address; evidence without it."""


class WishesList(StrEnum):
    DOMAIN = "domain"
    """Of the sending domain that the person was written to from."""
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class SuppressionConfig:
    enabled: bool = True
    storage: SuppressionStorage = SuppressionStorage.PLAIN
    provisional_minutes: float = 30.0
    """How long a hard bounce may be withdrawn."""
    outage_recipients: int = 50
    outage_share: float = 0.2
    """More of at least so many recipients of a provider that bounce hard within ten minutes are its outage."""
    discard: tuple[str, ...] = ()
    """Tenants (SASL logins) whose mail to suppressed recipients is taken and thrown away instead of refused."""
    transactional: tuple[str, ...] = ()
    """SASL logins whose mail complaints, unsubscriptions and silence do not stop."""
    complaints: WishesList = WishesList.DOMAIN
    """Which list a complaint or an unsubscription goes on."""
    inactive_days: float = 0.0
    """Who opened and clicked nothing for so long is suppressed for that sending domain; 0: nobody, and deliveries are
    not counted by person.
    """
    inactive_deliveries: int = 20
    """But only after so many deliveries without an open or a click."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    listen: str = ""
    """ADDRESS:PORT of the interface for complaints, unsubscriptions, opens, clicks and bounces; empty: none."""
    token_file: str = ""
    """File with the token that its clients must show, at least 20 characters."""
    per_minute: int = 60_000
    """Events of one client address beyond which it is told to wait."""


@dataclass(frozen=True, slots=True)
class ReportConfig:
    campaign_headers: tuple[str, ...] = ("X-Campaign-ID", "X-Campaign", "Feedback-ID")
    """Headers that name a message's campaign; header checks must log them (postfix-conf/header_checks.regexp)."""
    segment_headers: tuple[str, ...] = ("X-Segment", "List-ID")
    """Headers that name the segment."""
    schedule: Schedule = Schedule.NEVER
    """Send a report of the last day, or on Mondays of the last week."""
    at: str = "07:00"
    """When, by this host's clock."""
    to: tuple[str, ...] = ()
    """Addresses that get it by mail, with all its tables."""
    sender: str = ""
    """From of that mail; empty: as Postfix puts it."""
    channel: str = ""
    """Name of a [[channel]] (slack, webhook, mail) that gets its main table."""


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    enabled: bool = True
    owner: str = ""
    """Whose incidents are that no condition gives to somebody."""
    host: str = ""
    """What this host is called in messages; empty: its name."""
    runbooks: str = ""
    """URL below which the runbooks are, as "https://wiki.example/sidecar/"; empty: their file names are given."""
    page: str = ""
    """URL of our page as people reach it, for links."""
    without: tuple[str, ...] = ()
    """Names of conditions that are not looked at."""
    digest: str = ""
    """When the daily digest leaves, over every channel that people read: a time of day in UTC, as "07:00"; empty: none
    is made.
    """


class ChannelKind(StrEnum):
    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    ALERTMANAGER = "alertmanager"
    WEBHOOK = "webhook"
    MAIL = "mail"
    APPRISE = "apprise"
    """Any service that the library Apprise knows; it is an extra of the package."""


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    name: str
    kind: ChannelKind
    severities: tuple[str, ...] = ()
    """Of incidents that it is told of; empty: critical, error and warning (pagerduty: critical and error)."""
    url: str = ""
    """Of alertmanager and webhook; of the API where it is not the usual one (slack with a token, pagerduty)."""
    url_file: str = ""
    """File with a URL that is a secret: Slack's incoming webhook; of apprise: one of its URLs a line."""
    token_file: str = ""
    """File with a Slack bot's token: an incident is then one thread."""
    channel: str = ""
    """Id of the Slack channel that the bot posts to, as C0123456789."""
    routing_key_file: str = ""
    """File with the integration key of PagerDuty's Events API v2."""
    secret_file: str = ""
    """File with the secret that a webhook is signed with."""
    to: tuple[str, ...] = ()
    """Addresses that mail goes to."""
    sender: str = ""
    """From of mail; empty: as Postfix puts it."""
    sendmail: str = "/usr/sbin/sendmail"


@dataclass(frozen=True, slots=True)
class ConditionConfig:
    name: str
    when: str
    """An expression over feed, object, kind, measure, value, share, text, volume and baseline of a figure."""
    until: str = ""
    """An expression that must hold for it to be over; empty: that `when` does not."""
    severity: str = "warning"
    confirm: int = 1
    """Looks in a row until it fires."""
    clear: int = 1
    owner: str = ""
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class TransportConfig:
    name: str
    """Of the entry of master.cf, as out-comcast; it is one of smtp(8)."""
    maxproc: int = 20
    """Cap on connections, over all domains of a provider: process limit of the transport."""
    bind_address: str = ""
    """IPv4 address that it sends from; empty: as smtp_bind_address of main.cf has it."""
    bind_address6: str = ""
    helo: str = ""
    """Name that it gives at EHLO, which should resolve to its address and back; empty: as main.cf has it."""
    concurrency: int = 0
    """Connections to one destination domain at most; 0: as main.cf has it."""
    recipients: int = 0
    """Recipients of one transaction at most; 0: as main.cf has it."""
    rate_delay_seconds: int = 0
    """Between two deliveries to one destination, one at a time then; 0: as main.cf has it."""
    options: tuple[str, ...] = ()
    """More `-o` overrides of smtp(8), as "smtp_tls_security_level=encrypt"."""


@dataclass(frozen=True, slots=True)
class QuotaConfig:
    name: str
    """In answers, the log and commands."""
    per: Per
    """Whose bucket: tenant (SASL login), sending-domain, client, sender, tenant-provider."""
    limit: int
    """What comes back within a second, a minute, an hour or a day."""
    within: Within
    count: Counted = Counted.RECIPIENTS
    """recipients or messages."""
    burst: int = 0
    """At once; 0: as many as the limit. Within any `within` at most limit and burst together."""
    warn: float = 0.0
    """Share of the burst from which it is said, as 0.8; 0: never."""
    defer: bool = True
    """Beyond it answer 450; false: only say it."""
    where: str = ""
    """An expression: which mail counts; empty: all."""
    keys: int = 10_000
    """Buckets kept at most; beyond it the one that was asked about longest ago begins anew."""
    fleet: bool = False
    """With store.redis: all hosts have one bucket together, and each what it needs of it; else one each."""


@dataclass(frozen=True, slots=True)
class HygieneScopeConfig:
    tenant: str = ""
    """SASL login that these levels are for; or:"""
    sending_domain: str = ""
    """Domain of the envelope sender."""
    syntax: Level = Level.OFF
    null_mx: Level = Level.OFF
    no_host: Level = Level.OFF
    typo: Level = Level.OFF
    disposable: Level = Level.OFF
    role: Level = Level.OFF


@dataclass(frozen=True, slots=True)
class HygieneConfig:
    syntax: Level = Level.OFF
    """off, warn or reject: an address that no mailbox can have."""
    null_mx: Level = Level.OFF
    """A domain that says that it takes no mail."""
    no_host: Level = Level.OFF
    """A domain with neither a mail exchanger nor an address."""
    typo: Level = Level.OFF
    """A known misspelling of a large provider."""
    disposable: Level = Level.OFF
    """A domain of mailboxes for minutes."""
    role: Level = Level.OFF
    """info@, sales@ and the like."""
    typo_file: str = ""
    """File with misspellings in the place of ours: two domains a line, the wrong one first."""
    disposable_file: str = ""
    """File with domains in the place of ours, one a line."""
    role_file: str = ""
    """File with local parts in the place of ours, one a line."""
    control_domains: tuple[str, ...] = ("gmail.com", "outlook.com", "yahoo.com")
    """Domains of which our resolver must know one, or else what it denies counts for nobody; none: it is believed."""
    verify_domains: tuple[str, ...] = ()
    """Recipient domains for which smtpd is told to ask the recipient's server first (reject_unverified_recipient)."""
    scope: tuple[HygieneScopeConfig, ...] = ()
    """[[hygiene.scope]]: other levels for one tenant or one sending domain."""


@dataclass(frozen=True, slots=True)
class Route:
    transport: str
    """Name of a transport in master.cf."""
    provider: str = ""
    """Whose mail goes over it; or say it with `when`."""
    when: str = ""
    """An expression over a message: provider, tenant, sender and the like; the first route that holds wins."""
    name: str = ""
    """What the log and `sidecar ask` call it; empty: as the transport."""
    maxproc: int = 20
    """Cap on connections: process limit of the transport. Where [[transport]] has the transport, that counts."""
    options: tuple[str, ...] = ()
    """`-o` overrides of smtp(8), as "smtp_bind_address=192.0.2.7"."""


@dataclass(frozen=True, slots=True)
class PoolMember:
    transport: str
    """Name of a transport in master.cf."""
    weight: float = 1.0
    """Its share of the pool's mail is its weight in that of all members."""
    address: str = ""
    """That its mail leaves from, as the world sees it; empty: what Postfix binds it to."""


@dataclass(frozen=True, slots=True)
class PoolConfig:
    name: str
    transports: tuple[PoolMember, ...]
    """{ transport, weight, address } each."""
    sticky: Sticky = Sticky.NONE
    otherwise: str = ""
    """Transport of mail that no member takes; empty: as Postfix sends all other."""


@dataclass(frozen=True, slots=True)
class WarmUpCap:
    provider: str
    per_day: int


@dataclass(frozen=True, slots=True)
class WarmUpConfig:
    transport: str
    started: str
    """The first day, in UTC, as "2026-11-22"; before it the transport takes no mail."""
    start_per_day: int
    """Recipients on the first day, altogether and at each provider."""
    until_per_day: int
    """Recipients a day at which it is warm."""
    growth: float = 1.4
    """Factor from one good day to the next."""
    caps: tuple[WarmUpCap, ...] = ()
    """{ provider, per_day } each: never more than that while it warms up."""
    fleet: bool = False
    """With store.redis: all hosts send it from one address, and have its figures together."""


@dataclass(frozen=True, slots=True)
class CanaryConfig:
    name: str
    when: str
    """Which mail is tried on: an expression as in [[route]]."""
    transport: str
    """What the share goes over; or pool:NAME."""
    share: float = 0.05
    until: int = 1_000
    """Deliveries of the canary after which it is decided."""
    loss: float = 0.02
    """Acceptance that it may at most have lost, for sure, to be promoted by itself."""


@dataclass(frozen=True, slots=True)
class ReactConfig:
    name: str
    signal: Signal
    do: Do
    to: str = ""
    """Transport or pool:NAME of isolated mail."""
    providers: tuple[str, ...] = ()
    """At these; empty: where the sign was seen, or everywhere."""
    only: tuple[str, ...] = ()
    """Transports or sending domains that it is for; empty: all."""
    return_hours: float = 24.0
    """In how many hours an address that may come back gets all its mail again."""
    requeue: bool = False
    """What is queued for an address that leaves its pool goes over another member, paced."""


@dataclass(frozen=True, slots=True)
class Config:
    mode: Mode = Mode.OBSERVE
    runtime_directory: str = "/run/sidecar"
    """Where the control and helper sockets are."""
    log: LogConfig = field(default_factory=LogConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    clickhouse: ClickHouseConfig = field(default_factory=ClickHouseConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    postfix: PostfixConfig = field(default_factory=PostfixConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    web: WebConfig = field(default_factory=WebConfig)
    dns: DnsConfig = field(default_factory=DnsConfig)
    outside: OutsideConfig = field(default_factory=OutsideConfig)
    feeds: FeedsConfig = field(default_factory=FeedsConfig)
    authentication: HoldConfig = field(default_factory=HoldConfig)
    report_mail: ReportMailConfig = field(default_factory=ReportMailConfig)
    seed: tuple[SeedConfig, ...] = ()
    """[[seed]]: mailboxes in which test mail is looked for."""
    seedtest: SeedTestConfig = field(default_factory=SeedTestConfig)
    subqueues: SubqueuesConfig = field(default_factory=SubqueuesConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    suppression: SuppressionConfig = field(default_factory=SuppressionConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    channel: tuple[ChannelConfig, ...] = ()
    """[[channel]]: who is told of incidents; the next one stands in for one that is broken."""
    condition: tuple[ConditionConfig, ...] = ()
    """[[condition]]: conditions of the site's own."""
    transport: tuple[TransportConfig, ...] = ()
    """[[transport]]: transports for routes and pools, which `sidecar postfix apply` renders into master.cf."""
    hygiene: HygieneConfig = field(default_factory=HygieneConfig)
    quota: tuple[QuotaConfig, ...] = ()
    """[[quota]]: how much a tenant, a domain, a client or a sender may hand in."""
    route: tuple[Route, ...] = ()
    """[[route]]: which mail goes over which transport, in order."""
    pool: tuple[PoolConfig, ...] = ()
    """[[pool]]: transports that share mail."""
    warm_up: tuple[WarmUpConfig, ...] = ()
    """[[warm_up]]: how much a new address may carry."""
    canary: tuple[CanaryConfig, ...] = ()
    """[[canary]]: mail of which a share goes another way first; the first whose `when` holds has it."""
    react: tuple[ReactConfig, ...] = ()
    """[[react]]: what a bad sign sets off."""

    @property
    def control_socket(self) -> Path:
        return Path(self.runtime_directory) / "control"

    @property
    def helper_socket(self) -> Path:
        return Path(self.runtime_directory) / "helper"

    @property
    def outside_socket(self) -> Path:
        """Where the outside process takes commands about alerts."""
        return Path(self.runtime_directory) / "outside"

    @property
    def core_database(self) -> Path:
        return Path(self.store.path) / "core.db"

    @property
    def outside_database(self) -> Path:
        return Path(self.store.path) / "outside.db"

    @property
    def report_spool(self) -> Path:
        """Where the pipe and `ingest` hand report mail over to the outside process: a Maildir."""
        return Path(self.store.path) / "report-mail"

    @property
    def suppression_key(self) -> Path:
        """The key of the digests of addresses."""
        return Path(self.store.path) / "suppression.key"

    @property
    def suppression_index(self) -> Path:
        """Who is suppressed, made of core.db."""
        return Path(self.store.path) / "suppressed.index"

    @property
    def held_record(self) -> Path:
        """The helper's own append-only record of what it held."""
        return Path(self.store.path) / "held.record"


def load(path: Path | None) -> Config:
    """Read a configuration; None means the default place, where a missing file gives the defaults.

    Raises ConfigError.
    """
    if path is None:
        try:
            DEFAULT_PATH.stat()
        except FileNotFoundError:
            return Config()
        except OSError as error:
            raise ConfigError(f"{DEFAULT_PATH}: cannot be read: {error.strerror}") from error
        path = DEFAULT_PATH
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return read_table(Config, table, file=path)
