"""Public keys of DKIM as domains publish them (RFC 6376 section 3.6.1, RFC 8301, RFC 8463).

Reads just enough of DER to tell a key's length.
"""

import binascii
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from parsers.tag_list import TagError, read_tags

BITS_MIN = 1024
"""Shorter RSA keys are not verified (RFC 8301 section 3.2)."""
BITS_GOOD = 2048


class DkimKeyError(Exception):
    """A key record that verifiers cannot use: says why."""


class DkimKey(NamedTuple):
    algorithm: str
    """rsa or ed25519."""
    bits: int
    """0 where it is revoked."""
    fingerprint: str
    """The same for the same key, however it is written; "" where it is revoked."""
    revoked: bool
    testing: bool
    """t=y: verifiers treat the mail as unsigned."""


def is_key(text: str) -> bool:
    """Whether a TXT record may be a key: other records below a selector are not ours to judge."""
    words = text.replace(" ", "").replace("\t", "")
    return words.startswith(("v=DKIM1", "p=")) or ";p=" in words


def read_key(text: str) -> DkimKey:
    """Raises DkimKeyError."""
    try:
        tags = read_tags(text)
    except TagError as error:
        raise DkimKeyError(str(error)) from error
    _check(tags)
    algorithm = tags.get("k", "rsa").lower()
    testing = "y" in _words(tags.get("t", ""))
    if "p" not in tags:
        raise DkimKeyError("p= is missing, wanted the public key")
    written = "".join(tags["p"].split())
    if not written:
        return DkimKey(algorithm, 0, "", revoked=True, testing=testing)
    try:
        der = binascii.a2b_base64(written + "=" * (-len(written) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise DkimKeyError("p= is not base64: part of the key is lost or mistyped") from error
    if algorithm == "ed25519":
        if len(der) != 32:
            raise DkimKeyError(f"p= has {len(der)} bytes, wanted the 32 of an Ed25519 key")
        bits, number = 256, der
    else:
        modulus = rsa_modulus(der)
        bits, number = modulus.bit_length(), modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    return DkimKey(algorithm, bits, hashlib.sha256(number).hexdigest()[:16], revoked=False, testing=testing)


def _check(tags: Mapping[str, str]) -> None:
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1"):
        raise DkimKeyError("v= must be DKIM1 and stand first")
    if tags.get("k", "rsa").lower() not in {"rsa", "ed25519"}:
        raise DkimKeyError(f"k={tags['k'][:20]}: wanted rsa or ed25519")
    if "sha256" not in _words(tags.get("h", "sha256")):
        raise DkimKeyError(f"h={tags['h'][:40]}: wanted sha256 among the hashes, the only one that is still verified")
    if not {"*", "email"} & set(_words(tags.get("s", "*"))):
        raise DkimKeyError(f"s={tags['s'][:40]}: wanted email or * among the services")


def _words(value: str) -> list[str]:
    return [word.strip().lower() for word in value.split(":")]


# DER (X.690): SubjectPublicKeyInfo of RFC 5280 around, or bare, the RSAPublicKey of RFC 8017 appendix A.1.1.

_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
_RSA = bytes.fromhex("06092a864886f70d010101")
"""rsaEncryption, as an object identifier."""


def rsa_modulus(der: bytes) -> int:
    """Give the modulus of an RSA key. Raises DkimKeyError for what is none."""
    inside, rest = _element(der, _SEQUENCE)
    if rest:
        raise DkimKeyError("p= goes on after the key: part of another key may be pasted to it")
    if inside[:1] == bytes([_SEQUENCE]):
        algorithm, bits = _element(inside, _SEQUENCE)
        if not algorithm.startswith(_RSA):
            raise DkimKeyError("p= is no RSA key; k= must say what it is")
        string, _ = _element(bits, _BIT_STRING)
        inside, _ = _element(string[1:], _SEQUENCE)
    modulus, rest = _element(inside, _INTEGER)
    exponent, _ = _element(rest, _INTEGER)
    number = int.from_bytes(modulus, "big", signed=True)
    if number <= 0 or number % 2 == 0 or int.from_bytes(exponent, "big", signed=True) < 3:
        raise DkimKeyError("p= is no RSA key: its numbers cannot be one")
    return number


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Take one element of this tag off the front: its content, and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise DkimKeyError("p= is no RSA key: its bytes are not the form of one")
    length, at = der[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(der[2:at], "big")
    if at > len(der) or at + length > len(der):
        raise DkimKeyError("p= ends within the key: the record is cut off")
    return der[at : at + length], der[at + length :]
