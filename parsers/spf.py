"""SPF records: their grammar, and which addresses a domain's record lets send (RFC 7208).

Knows the limits on look-ups, and that a look-up that fails says nothing against a record.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

LOOKUPS_MAX = 10
"""Terms of a whole evaluation that may ask the DNS (section 4.6.4)."""
VOIDS_MAX = 2
"""Of these, those that may find nothing."""


class Result(StrEnum):
    """What a record says of an address (section 2.6)."""

    PASS = "pass"  # noqa: S105  # a result
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    NONE = "none"
    PERMERROR = "permerror"
    TEMPERROR = "temperror"


class SpfError(Exception):
    """A record that cannot be read: says which term, and what would be right."""


class Net(NamedTuple):
    """A network in numbers: a record is held against hundreds of addresses."""

    version: int
    number: int
    mask: int


class Term(NamedTuple):
    """One mechanism with its qualifier."""

    text: str
    result: Result
    """Of an address that it matches."""
    mechanism: str
    """all, include, a, mx, ptr, ip4, ip6 or exists."""
    target: str = ""
    """Domain, with its macros; "" where it is the record's own."""
    net: Net | None = None
    masks: Mapping[int, int] = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
    """Of a and mx, by version of the address."""


class Record(NamedTuple):
    terms: tuple[Term, ...]
    redirect: str = ""
    remarks: tuple[str, ...] = ()
    """What is allowed and hardly meant."""


_QUALIFIERS = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
_TERM = re.compile(r"([-+~?]?)([A-Za-z][A-Za-z0-9_.-]*)(.*)", re.DOTALL)
_CIDR = re.compile(r"(?P<domain>.*?)(?:/(?P<four>\d+))?(?://(?P<six>\d+))?")
_MACRO = re.compile(r"%\{([slodiphcrtv])(\d*)(r?)([-.+,/_=]*)\}|%([%_-])", re.IGNORECASE)
_TOP_LABEL = re.compile(r"(?![0-9]+$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_MEANT = {"ipv4": "ip4", "ipv6": "ip6", "ip": "ip4", "inc": "include", "includes": "include", "exist": "exists"}


def is_spf(text: str) -> bool:
    """Whether a TXT record is one of SPF, well-formed or not (section 4.5)."""
    return text[:6].lower() == "v=spf1" and text[6:7] in {"", " "}


@lru_cache(maxsize=4_096)
def read_record(text: str) -> Record:
    """Read a record. Raises SpfError for what makes it invalid as a whole (section 4.6)."""
    if not is_spf(text):
        raise SpfError(f"begins with {text[:12]!r}, wanted 'v=spf1 '")
    if not text.isascii() or any(ord(char) < 32 for char in text):
        raise SpfError("holds characters that are not printable ASCII")
    terms: list[Term] = []
    modifiers: dict[str, str] = {}
    remarks: list[str] = []
    for word in text[6:].split(" "):
        if word:
            _read_word(word, terms, modifiers, remarks)
    if any(term.mechanism == "all" for term in terms):
        modifiers.pop("redirect", "")
    elif "redirect" not in modifiers:
        remarks.append("ends without all: others are neither refused nor allowed; wanted ~all or -all at the end")
    return Record(tuple(terms), modifiers.get("redirect", ""), tuple(remarks))


def _read_word(word: str, terms: list[Term], modifiers: dict[str, str], remarks: list[str]) -> None:
    found = _TERM.fullmatch(word)
    if not found:
        raise SpfError(f"{word[:60]!r}: no mechanism and no modifier")
    sign, name, rest = found.group(1), found.group(2).lower(), found.group(3)
    if rest.startswith("=") and not sign:
        _read_modifier(word, name, rest[1:], modifiers, remarks)
    elif name in _READ:
        terms.append(_READ[name](word, name, _QUALIFIERS[sign or "+"], rest))
        if name == "ptr":
            remarks.append(f"{word!r}: slow and not to be used (section 5.5)")
    else:
        meant = _MEANT.get(name, "")
        raise SpfError(f"{word[:60]!r}: unknown mechanism" + (f"; did you mean {meant}?" if meant else ""))


def _read_modifier(word: str, name: str, value: str, modifiers: dict[str, str], remarks: list[str]) -> None:
    if name in {"redirect", "exp"}:
        if name in modifiers:
            raise SpfError(f"{name}= stands twice")
        modifiers[name] = _domain_spec(word, value)
    elif _MACRO.sub("", value).count("%"):
        raise SpfError(f"{word[:60]!r}: a % that begins no macro")
    elif name in _READ or name in _MEANT:
        remarks.append(f"{word!r} does nothing; did you mean {_MEANT.get(name, name)}:{value}?")


def _read_all(word: str, name: str, result: Result, rest: str) -> Term:
    if rest:
        raise SpfError(f"{word[:60]!r}: all takes nothing after it")
    return Term(word, result, name)


def _read_domain(word: str, name: str, result: Result, rest: str) -> Term:
    """`include` and `exists` need a domain; `ptr` may have one."""
    if not rest and name == "ptr":
        return Term(word, result, name)
    if not rest.startswith(":") or not rest[1:]:
        raise SpfError(f"{word[:60]!r}: wanted {name}:DOMAIN")
    return Term(word, result, name, _domain_spec(word, rest[1:]))


def _read_host(word: str, name: str, result: Result, rest: str) -> Term:
    """`a` and `mx`: a domain and two prefix lengths, each may be missing."""
    found = _CIDR.fullmatch(rest)
    assert found  # it matches anything
    target = found["domain"]
    if target and not (target.startswith(":") and target[1:]):
        raise SpfError(f"{word[:60]!r}: wanted {name}, {name}:DOMAIN or {name}:DOMAIN/LENGTH")
    masks = {4: _mask(word, found["four"] or "32", 32), 6: _mask(word, found["six"] or "128", 128)}
    return Term(word, result, name, _domain_spec(word, target[1:]) if target else "", masks=masks)


def _read_network(word: str, name: str, result: Result, rest: str) -> Term:
    bits, version = (32, 4) if name == "ip4" else (128, 6)
    address, slash, length = rest[1:].partition("/")
    mask = _mask(word, length if slash else str(bits), bits)
    try:
        number = int(ipaddress.IPv4Address(address) if version == 4 else ipaddress.IPv6Address(address))
    except ValueError:
        number = -1
    if not rest.startswith(":") or number < 0 or "%" in address:
        raise SpfError(f"{word[:60]!r}: wanted {name}:ADDRESS or {name}:ADDRESS/LENGTH with an IPv{version} address")
    return Term(word, result, name, net=Net(version, number & mask, mask))


def _mask(word: str, length: str, bits: int) -> int:
    if not length.isdecimal() or len(length) > 3 or int(length) > bits or (length[0] == "0" and length != "0"):
        raise SpfError(f"{word[:60]!r}: found the prefix length {length!r}, wanted 0 to {bits}")
    return ((1 << int(length)) - 1) << (bits - int(length))


_READ = {
    "all": _read_all,
    **dict.fromkeys(("include", "exists", "ptr"), _read_domain),
    **dict.fromkeys(("a", "mx"), _read_host),
    **dict.fromkeys(("ip4", "ip6"), _read_network),
}


def _domain_spec(word: str, spec: str) -> str:
    """Section 7.1: macros and literals; what ends in no macro must end in a label that is no number."""
    literal = _MACRO.sub("", spec)
    if "%" in literal:
        raise SpfError(f"{word[:60]!r}: a % that begins no macro")
    if any(macro[1].lower() in "crt" for macro in _MACRO.finditer(spec) if macro[1]):
        raise SpfError(f"{word[:60]!r}: the macros c, r and t are for explanations alone")
    ends_in_macro = any(macro.end() == len(spec) and macro[1] for macro in _MACRO.finditer(spec))
    plain = spec.removesuffix(".")
    if not ends_in_macro and not ("." in plain and _TOP_LABEL.fullmatch(plain.rpartition(".")[2])):
        raise SpfError(f"{word[:60]!r}: {spec[:60]!r} is no domain")
    return spec


class Client(NamedTuple):
    """An address that sends."""

    address: str
    version: int
    number: int

    @classmethod
    def of(cls, address: str) -> "Client":
        """Raises ValueError; an IPv4 address in IPv6 clothes is one of IPv4 (section 5)."""
        parsed = ipaddress.ip_address(address)
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return cls(address, parsed.version, int(parsed))

    @property
    def dotted(self) -> str:
        """As the macro i writes it: of IPv6 the nibbles."""
        if self.version == 4:
            return str(ipaddress.IPv4Address(self.number))
        return ".".join(f"{self.number:032x}")


def matching(net: Net, clients: Collection[Client]) -> set[Client]:
    return {each for each in clients if each.number & net.mask == net.number and each.version == net.version}


def expand(spec: str, client: Client, *, domain: str, sender_domain: str, helo: str = "") -> str:
    """Replace the macros of a domain (section 7), of mail from postmaster@sender_domain.

    What is left is shortened from the left to 253 characters.
    """
    values = {
        "s": f"postmaster@{sender_domain}",
        "l": "postmaster",
        "o": sender_domain,
        "d": domain,
        "i": client.dotted,
        "p": "unknown",
        "v": "in-addr" if client.version == 4 else "ip6",
        "h": helo or sender_domain,
    }

    def replace(macro: re.Match[str]) -> str:
        letter, count, backwards, delimiters, escaped = macro.groups()
        if escaped:
            return {"%": "%", "_": " ", "-": "%20"}[escaped]
        parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
        if backwards:
            parts.reverse()
        kept = ".".join(parts[-int(count) :] if count and int(count) else parts)
        return quote(kept, safe="") if letter.isupper() else kept

    name = _MACRO.sub(replace, spec).rstrip(".")
    while len(name) > 253 and "." in name:
        name = name.partition(".")[2]
    return name


def has_macro(spec: str) -> bool:
    return "%" in spec
