"""Which blocklists a reply names, by the ids that the poller uses for the same lists.

Knows the lists' names and zones as replies have them, and the bit masks that Comcast and Cox print instead.
"""

import re
from typing import Final

from policies.matching import Phrases
from policies.said import normalise

_NAMES: Final = {
    "spamhaus_zen": ("zen.spamhaus", "spamhaus zen", "spamhaus-zen", "spamhaus.org/zen", "sbl-xbl"),
    "spamhaus_dbl": ("dbl.spamhaus", "spamhaus dbl", "spamhaus-dbl", "spamhaus.org/dbl", "/query/domain/"),
    "spamhaus_css": ("spamhaus css", "css.spamhaus", "sblcss", "spamhaus.org/css"),
    "spamhaus_sbl": ("sbl.spamhaus", "spamhaus sbl", "spamhaus-sbl", "spamhaus.org/sbl", "spamhaus block list"),
    "spamhaus_xbl": ("xbl.spamhaus", "spamhaus xbl", "spamhaus-xbl", "spamhaus.org/xbl", "exploits block list"),
    "spamhaus_pbl": ("pbl.spamhaus", "spamhaus pbl", "spamhaus-pbl", "spamhaus.org/pbl", "policy block list"),
    "spamcop": ("spamcop",),
    "barracuda": ("barracudacentral", "barracuda reputation", "barracudanetworks.com/reputation"),
    "sorbs": ("sorbs",),
    "invaluement_ivmsip": ("ivmsip", "invaluement"),
    "invaluement_ivmuri": ("ivmuri",),
    "abusix": ("abusix",),
    "hostkarma": ("hostkarma", "junkemailfilter", "junkmailfilter"),
    "uceprotect": ("uceprotect",),
    "psbl": ("psbl.surriel", "psbl.org"),
    "mailspike": ("mailspike",),
    "cobion": ("cobion",),
    "spamrl": ("spamrl",),
    "spamrats": ("spamrats",),
    "surbl": ("surbl",),
    "uribl": ("multi.uribl", "uribl.com"),
    "cbl": ("cbl.abuseat", "abuseat.org"),
    "cloudmark_csi": ("cloudmark", "cm-csi", "csi.mimecast"),
    "senderscore_bl": ("senderscore",),
    "proofpoint": ("ipcheck.proofpoint", "proofpoint.com/dnsbl", "proofpoint reputation", "refused by proofpoint"),
    "trendmicro": ("trend micro", "mail-abuse.com", "mail reputation service", "trendmicro"),
    "blocklistde": ("blocklist.de",),
    "nixspam": ("nixspam", "ix.dnsbl.manitu"),
    "spfbl": ("spfbl",),
    "att": ("dnsbl:attrbl", "dnsbl:rbl 521"),
    "nerd": ("countries.nerd.dk",),
}  # fmt: skip
"""Id -> how replies name the list."""
_PHRASES: Final = Phrases(
    (order, normalise(phrase), name)
    for order, (name, phrase) in enumerate((name, phrase) for name, phrases in _NAMES.items() for phrase in phrases)
)
_SPAMHAUS_ZONES: Final = frozenset(
    {"spamhaus_zen", "spamhaus_dbl", "spamhaus_css", "spamhaus_sbl", "spamhaus_xbl", "spamhaus_pbl"}
)
_SBL_RECORD: Final = re.compile(r"\bsbl\d{3,}\b")

_BIT_MASKS: Final = (
    # postmaster.comcast.net error pages; BL000000 is Comcast's own finding
    ("bl000", re.compile(r"\bbl0{0,3}([01]{3,6})\b"), ("spamhaus_zen", "cloudmark_csi", "senderscore_bl")),
    # cox.com error codes
    ("ipbl", re.compile(r"\bipbl([01]{4,5})\b"), ("spamhaus_zen", "returnpath", "invaluement_ivmsip", "cloudmark_csi")),
    ("urlbl", re.compile(r"\burlbl([01]{3})\b"), ("surbl", "spamhaus_dbl", "invaluement_ivmuri")),
)
"""What stands before a mask of digits, the mask, and the lists that its ones stand for, from the right."""
_ZONE: Final = re.compile(
    r"(?:blocked|listed|rejected|blacklisted|listing)[^;]{0,30}? (?:using|by|at|in|on) (?:the )?((?:[a-z0-9_-]{1,63}\.){1,6}[a-z]{2,20})\b"
)


def find_blocklists(text: str, have: frozenset[str], *, zone_in: str = "") -> tuple[str, ...]:
    """Every list that a normalised text names, in the order of the table above.

    `have` are the text's words. Where it names none that we know: the zone that `zone_in` calls a list, the text as it
    was said, for in a name "email" must stay "email".
    """
    found = [name for _, _, name in sorted(_PHRASES.said(text, have))]
    if "spamhaus" in text and not _SPAMHAUS_ZONES.intersection(found):
        found.insert(0, "spamhaus_sbl" if _SBL_RECORD.search(text) else "spamhaus")
    for mark, mask, lists in _BIT_MASKS:
        if mark in text and (bits := mask.search(text)):
            found += [name for name, bit in zip(lists, reversed(bits[1]), strict=False) if bit == "1"]
    if zone_in and not found and (zone := _ZONE.search(zone_in.lower())):
        found.append(zone[1])
    return tuple(dict.fromkeys(found))
