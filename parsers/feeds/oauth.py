"""OAuth 2.0 (RFC 6749, PKCE of RFC 7636) as text: the questions to a token endpoint and what its answers mean.

Knows which errors need a person and which pass; signs nothing, for a signed assertion is only one more field.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from parsers.feeds.asking import HttpAnswer, HttpAsk, Trouble
from parsers.feeds.http_failure import Failure, error_text, failure, json_value


class Grant(NamedTuple):
    """What a token is asked for with."""

    endpoint: str
    form: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]


class Token(NamedTuple):
    access: str
    seconds: float
    """For which it is good; 0 where they do not say."""
    refresh: str = ""
    """The new refresh token; "" where the old one stays."""


def refresh_grant(endpoint: str, *, client_id: str, refresh_token: str, secret: str = "", scope: str = "") -> Grant:
    """RFC 6749 section 6; a public client has no secret."""
    form = {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": secret,
        "refresh_token": refresh_token,
        "scope": scope,
    }
    return Grant(endpoint, tuple((name, value) for name, value in form.items() if value), (refresh_token, secret))


def assertion_grant(endpoint: str, assertion: str) -> Grant:
    """RFC 7523: a JWT that somebody signed."""
    form = (("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion))
    return Grant(endpoint, form, (assertion,))


def token_ask(grant: Grant) -> HttpAsk:
    headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"))
    body = urlencode(grant.form).encode()
    return HttpAsk(grant.endpoint, "POST", headers, body, grant.secrets, private=True)


def read_token(answer: HttpAnswer, *, now: float) -> Token | Failure:
    """Read a token endpoint's answer (RFC 6749 sections 5.1 and 5.2)."""
    if wrong := failure(answer, now=now):
        return wrong._replace(trouble=_trouble(answer, wrong), why=f"no access token: {wrong.why}")
    told = json_value(answer)
    access = told.get("access_token") if isinstance(told, dict) else None
    if not isinstance(access, str) or not access or not access.isascii() or not access.isprintable():
        return Failure(Trouble.FORMAT, "no access token in the answer of the token endpoint", answer.status)
    refresh, seconds = told.get("refresh_token"), told.get("expires_in")
    return Token(access, _seconds(seconds), refresh if isinstance(refresh, str) else "")


def _seconds(value: object) -> float:
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return 0.0


_PASSING = ("internal_failure", "server_error", "temporarily_unavailable")


def _trouble(answer: HttpAnswer, wrong: Failure) -> Trouble:
    """Of a 4xx all but the errors that say so themselves is for a person: invalid_grant comes as 400."""
    if error_text(answer).startswith(_PASSING):
        return Trouble.NETWORK
    return Trouble.AUTHENTICATION if answer.status in {400, 401, 403} else wrong.trouble


# A person's consent.


class Client(NamedTuple):
    """Who asks a person to consent, and where."""

    authorize_endpoint: str
    token_endpoint: str
    client_id: str
    scope: str
    redirect_uri: str
    secret: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    """More fields of the first question, as access_type=offline."""


def authorization_url(client: Client, *, state: str, challenge: str) -> str:
    """The page that a person opens (RFC 6749 section 4.1.1; `challenge` is PKCE's, S256)."""
    fields = {
        "client_id": client.client_id,
        "response_type": "code",
        "redirect_uri": client.redirect_uri,
        "scope": client.scope,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **dict(client.extra),
    }
    return f"{client.authorize_endpoint}?{urlencode(fields, quote_via=quote)}"


class ConsentError(Exception):
    """What was pasted is not a redirect that can be used; says why."""


def code_of(pasted: str, *, state: str) -> str:
    """Take the code out of the address that the browser was sent to (RFC 6749 section 4.1.2). Raises ConsentError."""
    address = urlsplit(pasted.strip())
    fields = {name: values[0] for name, values in parse_qs(address.query or address.fragment).items()}
    if "error" in fields:
        raise ConsentError(": ".join(filter(None, (fields["error"], fields.get("error_description")))))
    if not fields.get("code"):
        raise ConsentError("no code in it; wanted the whole address that the browser shows, with ?code=...&state=...")
    if fields.get("state") != state:
        raise ConsentError("its state is another one: it answers an older page, or somebody else's; begin again")
    return fields["code"]


def code_grant(client: Client, *, code: str, verifier: str) -> Grant:
    """RFC 6749 section 4.1.3 with RFC 7636 section 4.5."""
    form: Mapping[str, str] = {
        "grant_type": "authorization_code",
        "client_id": client.client_id,
        "client_secret": client.secret,
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": verifier,
        "scope": client.scope,
    }
    pairs = tuple((name, value) for name, value in form.items() if value)
    return Grant(client.token_endpoint, pairs, (code, verifier, client.secret))


# A token that changes with each use.


class Stored(NamedTuple):
    """A login as it lies in its file."""

    refresh: str
    access: str = ""
    expires_at: float = 0.0
    logged_in_at: float = 0.0
    """When a person last consented."""

    def with_token(self, token: Token, *, now: float) -> "Stored":
        """What is to be kept after a refresh."""
        return self._replace(
            refresh=token.refresh or self.refresh, access=token.access, expires_at=now + (token.seconds or 300.0)
        )


def write_stored(stored: Stored) -> str:
    return json.dumps(stored._asdict(), indent=1) + "\n"


def read_stored(text: str) -> Stored | None:
    """None where the text is no login."""
    try:
        told = json.loads(text)
        stored = Stored(
            str(told["refresh"]), str(told["access"]), float(told["expires_at"]), float(told["logged_in_at"])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return stored if stored.refresh else None
