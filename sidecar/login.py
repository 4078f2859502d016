"""`sidecar login`: a person's consent, once, for a feed that needs one; the page may be opened on any machine.

Knows how the address that the browser ends at becomes a login on disk; the feeds use and renew it.
"""

import base64
import hashlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import click

from parsers.feeds import google_postmaster, snds
from parsers.feeds.asking import Keep
from parsers.feeds.http_failure import Failure
from parsers.feeds.oauth import (
    Client,
    ConsentError,
    Stored,
    Token,
    authorization_url,
    code_grant,
    code_of,
    read_token,
    token_ask,
    write_stored,
)
from sidecar.asking import fetch, keep
from sidecar.config import Config
from sidecar.credentials import google_client, google_file, snds_client, snds_token_file
from sidecar.own_log import printable


class Login(NamedTuple):
    """How a feed's login comes about."""

    client: Callable[[Config], Client]
    """Raises ConfigError."""
    path: Callable[[Config], Path]
    """Where it is kept."""
    text: Callable[[Client, Token, float], str]
    """What is kept, of a login at this time."""


def _authorized_user(client: Client, token: Token, _: float) -> str:
    """As Google's own programs write and read it."""
    fields = {"client_id": client.client_id, "client_secret": client.secret, "refresh_token": token.refresh}
    return json.dumps({"type": "authorized_user", **fields}, indent=1) + "\n"


def _stored(_: Client, token: Token, now: float) -> str:
    return write_stored(Stored("", logged_in_at=now).with_token(token, now=now))


LOGINS: Mapping[str, Login] = {
    snds.FEED: Login(snds_client, snds_token_file, _stored),
    google_postmaster.FEED: Login(google_client, google_file, _authorized_user),
}


@click.command(epilog="Example: sidecar login snds")
@click.argument("feed", type=click.Choice(list(LOGINS)))
@click.pass_obj
def login(config: Config, *, feed: str) -> None:
    """Log in to FEED: open the page that is printed, consent, and paste the address that the browser ends at.

    That address is on this machine and shows an error; this is as it should be, for it carries the code. The login is
    written for the outside process alone to read. Exit status 1 when there was no login.
    """
    entry = LOGINS[feed]
    client, path = entry.client(config), entry.path(config)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    click.echo("Open this page, log in and consent:\n", err=True)
    click.echo(authorization_url(client, state=state, challenge=challenge(verifier)))
    click.echo("\nThe browser then goes to an address that does not open. Paste it here, whole:", err=True)
    pasted = sys.stdin.readline()
    try:
        code = code_of(pasted, state=state)
    except ConsentError as error:
        raise click.ClickException(f"no login: {printable(str(error))}") from error
    answer = fetch(token_ask(code_grant(client, code=code, verifier=verifier)), ca_file=config.outside.ca_file)
    token = read_token(answer, now=time.time())
    if isinstance(token, Failure):
        raise click.ClickException(f"no login: {printable(token.why)}")
    if not token.refresh:
        raise click.ClickException("no login: they gave no refresh token; is offline access among the scopes?")
    kept = keep(Keep(str(path), entry.text(client, token, time.time())))
    if kept.error:
        raise click.ClickException(kept.error)
    click.echo(f"Logged in; kept in {path}.", err=True)


def challenge(verifier: str) -> str:
    """S256 of RFC 7636 section 4.2."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
