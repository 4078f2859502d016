"""How mail addresses are kept in the events of the store: as they are, as a hash, or not at all.

Knows that a remote server's reply repeats addresses. What is on hold keeps its addresses whatever is chosen.
"""

import hashlib
import re
from enum import StrEnum
from typing import Final

_ADDRESS: Final = re.compile(r"[^\s<>:;,()\[\]\"']{1,256}@[^\s<>:;,()\[\]\"']{1,256}")


class AddressForm(StrEnum):
    FULL = "full"
    HASH = "hash"
    """SHA-256 of the address in lower case: it can be searched for, and only who knows it can read it."""
    NONE = "none"


def hash_of(address: str) -> str:
    """SHA-256 of an address in lower case: tells two apart; who has a list of addresses can find them again."""
    return hashlib.sha256(address.lower().encode(errors="replace")).hexdigest()


def stored(address: str, form: AddressForm) -> str:
    """Give an address as it is kept; the null sender "" has none."""
    if not address or form is AddressForm.NONE:
        return ""
    return address if form is AddressForm.FULL else hash_of(address)


def stored_reply(text: str, form: AddressForm, *, longest: int) -> str:
    """Give a reply as it is kept: without addresses unless these are kept in full, and no longer than so."""
    cut = text[:longest]
    if form is not AddressForm.FULL and "@" in cut:
        cut = _ADDRESS.sub("(address)", cut)
    return cut
