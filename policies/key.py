"""The key of a sub-queue: who is throttled, and by whom."""

from typing import Final, NamedTuple, Self

EVERYWHERE: Final = "*"
"""Stands for the provider where it is the sender's own fault: `dkim-domain:example.com@*`."""


class Key(NamedTuple):
    """(identity, provider); written `dkim-domain:example.com@google`."""

    type: str
    """dkim-domain, spf-domain, from-domain, sender-domain (organizational domain of the envelope
    sender, where the reply names no identity), ip, netblock or host (an IP-scoped reply that names no IP)."""
    value: str
    provider: str

    def __str__(self) -> str:
        return f"{self.type}:{self.value}@{self.provider}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises ValueError when the text is not TYPE:VALUE@PROVIDER.
        """
        identity, at, provider = text.rpartition("@")
        type_, colon, value = identity.partition(":")
        if not (at and colon and type_ and value and provider):
            raise ValueError(
                f"{text!r} is no sub-queue key; wanted TYPE:VALUE@PROVIDER, as dkim-domain:example.com@google"
            )
        return cls(type_, value, provider)
