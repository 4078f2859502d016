"""The credentials of feeds: reads their files, signs what must be signed, and says what is missing.

Asks nobody anything: what a credential is exchanged for, the feeds ask themselves.
"""

import ipaddress
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parsers.feeds import snds
from parsers.feeds.oauth import Client, Grant, assertion_grant, read_stored, refresh_grant
from sidecar.config import Config, ConfigError

_GOOGLE_TOKENS = "https://oauth2.googleapis.com/token"
_ASSERTION_SECONDS = 3600


def secret(setting: str, name: str) -> str:
    """What a file of one secret holds. Raises ConfigError."""
    if not name:
        raise ConfigError(f"{setting}: not set; wanted a file with the secret")
    try:
        text = Path(name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {name}: cannot be read: {error}") from error
    if not text:
        raise ConfigError(f"{setting}: {name}: empty; wanted the secret")
    return text


# Google.


def google_file(config: Config) -> Path:
    return Path(config.feeds.google_postmaster.credentials or Path(config.store.path) / "google-postmaster.json")


def google_grant(config: Config, *, scopes: Sequence[str], now: float) -> Grant:
    """Either kind of credentials, ready to be exchanged for an access token. Raises ConfigError."""
    ours = config.feeds.google_postmaster
    setting = "feeds.google_postmaster.credentials"
    told = _json_file(setting, str(google_file(config)))
    kind = told.get("type")
    endpoint = ours.token_endpoint or str(told.get("token_uri") or _GOOGLE_TOKENS)
    if kind == "authorized_user":
        client, key, token = (_field(told, name, setting) for name in ("client_id", "client_secret", "refresh_token"))
        return refresh_grant(endpoint, client_id=client, secret=key, refresh_token=token)
    if kind == "service_account":
        email = _field(told, "client_email", setting)
        claims: dict[str, Any] = {"iss": email, "scope": " ".join(scopes), "aud": endpoint, "iat": int(now)}
        claims |= {"exp": int(now) + _ASSERTION_SECONDS} | ({"sub": ours.subject} if ours.subject else {})
        return assertion_grant(endpoint, _assertion(told, setting, claims))
    raise ConfigError(f"{setting}: type: found {kind!r}, wanted 'service_account' or 'authorized_user'")


def _assertion(told: dict[str, Any], setting: str, claims: dict[str, Any]) -> str:
    """RFC 7523, as Google wants it: RS256, good for an hour."""
    # Here alone, for it takes a sixth of a second and some MB that only service accounts need.
    from google.auth import crypt, jwt  # noqa: PLC0415

    _field(told, "private_key", setting)
    try:
        return str(jwt.encode(crypt.RSASigner.from_service_account_info(told), claims), "ascii")
    except ValueError as error:
        raise ConfigError(f"{setting}: private_key: found no RSA key in PEM, wanted one as Google gave it") from error


def _json_file(setting: str, name: str) -> dict[str, Any]:
    if not name:
        raise ConfigError(f"{setting}: not set; wanted a JSON file")
    try:
        told = json.loads(Path(name).read_bytes())
    except OSError as error:
        raise ConfigError(f"{setting}: {name}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{setting}: {name}: not JSON: {error}") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{setting}: {name}: found {type(told).__name__}, wanted a JSON object")
    return told


def _field(told: dict[str, Any], name: str, setting: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{setting}: {name}: missing in the file")
    return value


def google_client(config: Config) -> Client:
    """For a person's consent. Raises ConfigError."""
    ours = config.feeds.google_postmaster
    setting = "feeds.google_postmaster.client"
    told = _json_file(setting, ours.client)
    inner = told.get("installed", told)
    inner = inner if isinstance(inner, dict) else {}
    return Client(
        ours.authorize_endpoint,
        ours.token_endpoint or _GOOGLE_TOKENS,
        _field(inner, "client_id", setting),
        " ".join(ours.scopes),
        ours.redirect_uri,
        _field(inner, "client_secret", setting),
        # Without these two Google gives no refresh token, or none the second time.
        (("access_type", "offline"), ("prompt", "consent")),
    )


# SNDS.


def snds_token_file(config: Config) -> Path:
    return Path(config.feeds.snds.token_file or Path(config.store.path) / "snds.token")


def snds_way(config: Config) -> snds.Login | snds.Links:
    """Links where there are any, else the login. Raises ConfigError."""
    ours = config.feeds.snds
    if ours.data_link or ours.status_link:
        return snds.Links(
            *(
                secret(f"feeds.snds.{name}", file) if file else ""
                for name, file in (("data_link", ours.data_link), ("status_link", ours.status_link))
            )
        )
    path = snds_token_file(config)
    try:
        stored = read_stored(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: nobody has logged in yet: sidecar login snds") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if stored is None:
        raise ConfigError(f"{path}: not a login; write it anew with: sidecar login snds")
    return snds.Login(stored, str(path), ours.token_endpoint, ours.client_id, ours.scope, ours.base_url)


def snds_client(config: Config) -> Client:
    ours = config.feeds.snds
    return Client(ours.authorize_endpoint, ours.token_endpoint, ours.client_id, ours.scope, ours.redirect_uri)


def snds_networks(config: Config) -> list[ipaddress.IPv4Network]:
    """Raises ConfigError."""
    try:
        return [ipaddress.IPv4Network(network) for network in config.feeds.snds.networks]
    except ValueError as error:
        raise ConfigError(f"feeds.snds.networks: {error}; wanted an IPv4 network, as 192.0.2.0/24") from error


def snds_ages(config: Config, way: snds.Login | snds.Links) -> Iterator[snds.Credential]:
    """What a person must renew; a link is as old as its file. Raises ConfigError."""
    ours = config.feeds.snds
    if isinstance(way, snds.Login):
        yield snds.Credential("login", way.stored.logged_in_at, "log in again when it is refused: sidecar login snds")
    else:
        for name, setting in (("data-link", "data_link"), ("status-link", "status_link")):
            if file := getattr(ours, setting):
                yield snds.Credential(name, _written(f"feeds.snds.{setting}", file), _LINKS_END)
    if ours.attested:
        needs = "access to a network ends ten months after it was attested: attest it in the portal"
        yield snds.Credential("attestation", _day("feeds.snds.attested", ours.attested), needs)


_LINKS_END = "a link ends 30 days after it was made: renew it in the portal"


def _written(setting: str, name: str) -> float:
    try:
        return Path(name).stat().st_mtime
    except OSError as error:
        raise ConfigError(f"{setting}: {name}: cannot be read: {error.strerror}") from error


def _day(setting: str, said: str) -> float:
    try:
        return datetime.strptime(said, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ConfigError(f"{setting}: found {said!r}, wanted a day, as 2026-06-20") from error
