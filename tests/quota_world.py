"""Quotas without a network: requests as smtpd sends them, and a Quotas to ask."""

from typing import Any

from parsers.policy_protocol import PolicyRequest
from policies.admission import Admission
from policies.buckets import Quotas
from policies.hygiene import Hygiene
from policies.quota import Counted, Per, Quota, Within
from tests.policy_world import PROVIDERS, World, access_in

NOW = 1.8e9


def request(**attributes: Any) -> PolicyRequest:
    given: dict[str, Any] = {
        "protocol_state": "RCPT", "sender": "news@mail.shop.example", "recipient": "a@gmail.com", "instance": "1",
        "sasl_username": "shop", "client_address": "192.0.2.7",
    }  # fmt: skip
    return PolicyRequest.of({name: str(value) for name, value in (given | attributes).items()})


def quota(name: str = "q", **settings: Any) -> Quota:
    given: dict[str, Any] = {
        "per": Per.TENANT, "counted": Counted.RECIPIENTS, "limit": 10, "within": Within.HOUR, "burst": 10,
    }  # fmt: skip
    return Quota(name, **(given | settings))


def organizational(domain: str) -> str:
    return ".".join(domain.split(".")[-2:])


def quotas(*rows: Quota) -> Quotas:
    return Quotas(rows, organizational=organizational, provider_of=PROVIDERS.get)


def access(*rows: Quota, hygiene: Hygiene | None = None, **settings: Any) -> Any:
    """Access with these quotas; they are its `quotas`."""
    made = quotas(*rows) if rows else None
    found = access_in(World(), admitting=Admission(hygiene, made, provider_of=PROVIDERS.get), **settings)
    return found, made


def admitted(quotas: Quotas, count: int, *, now: float = NOW, message: str = "1", **attributes: Any) -> int:
    """How many of so many recipients of one message are let in."""
    asked = [request(instance=message, recipient=f"{number}@gmail.com", **attributes) for number in range(count)]
    told = [quotas.take(each, ("postfix", message), acting=True, now=now) for each in asked]
    return sum(each is None for each in told)


def end(quotas: Quotas, count: int, *, now: float = NOW, message: str = "1", **attributes: Any) -> None:
    asked = request(
        protocol_state="END-OF-MESSAGE", instance=message, recipient_count=count, recipient="", **attributes
    )
    quotas.settle(asked, ("postfix", message), now=now)
