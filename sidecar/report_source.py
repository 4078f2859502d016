"""What a place with report mail gives: mails, each of which is acknowledged after it was stored, and else comes again."""

from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol


class SourceError(Exception):
    """A place that cannot be read now: says which, why, and what would be right."""


class Mail(NamedTuple):
    name: str
    data: bytes
    """At most one byte more than is taken in: such a mail is refused."""
    done: Callable[[bool], None]
    """To be called when it is stored; says whether it was understood. Raises SourceError."""


class Source(Protocol):
    @property
    def name(self) -> str: ...

    def mails(self) -> Generator[Mail, None, None]:
        """Give what is there and was not acknowledged. Raises SourceError."""
