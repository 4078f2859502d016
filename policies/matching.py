"""Finds the first rule that a reply fits, in a table of hundreds, in about ten microseconds.

Knows how phrases are laid out for that: by one whole word of each, so that only those whose word the reply has are
looked for at all. The order of the rules decides, whatever the layout.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from policies.rules import Rule
from policies.said import Heard, normalise, words
from policies.verdict import Reaction, Scope

T = TypeVar("T")

_NOTHING_USUAL: Final[Mapping[str, int]] = MappingProxyType({})

_BEFORE_RECIPIENT: Final = frozenset({"greeting", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL FROM"})
"""Answers to these were given before any recipient was named, so none of them condemns one."""


def says(text: str, phrase: str) -> bool:
    """Whether a normalised text has the phrase, beginning at a word: "ip blocked" is not in "zip blocked".

    A phrase that begins with a letter beyond ASCII may stand anywhere, since not all scripts set words apart.
    """
    at = text.find(phrase)
    while at > 0 and phrase[0].isalnum() and phrase[0].isascii() and text[at - 1].isalnum():
        at = text.find(phrase, at + 1)
    return at >= 0


class Phrases(Generic[T]):
    """Phrases and what each stands for, laid out by a word of each."""

    def __init__(self, phrases: Iterable[tuple[int, str, T]], usual: Mapping[str, int] = _NOTHING_USUAL) -> None:
        """Take (order, phrase, meaning); orders are unique, the phrase "" is in every text.

        `usual`: how often texts have a word, as far as that is known; a phrase is laid under its least usual one.
        """
        entries = [(entry, _whole_words(entry[1]) if entry[1].isascii() else frozenset()) for entry in phrases]
        common = Counter(word for _, whole in entries for word in whole)
        self._by_word: dict[str, list[_Entry[T]]] = {}
        self._by_start: dict[str, list[_Entry[T]]] = {}
        self._loose: list[_Entry[T]] = []
        self._foreign: list[_Entry[T]] = []
        starts = sum(not whole for _, whole in entries) > _FEW
        for entry, whole in entries:
            if whole:
                rarest = min(whole, key=lambda word: (usual.get(word, 0), common[word], word))
                self._by_word.setdefault(rarest, []).append((entry[1], entry))
            elif not entry[1].isascii():
                self._foreign.append((entry[1], entry))
            elif starts and len(start := _last_word(entry[1])[:_START]) == _START:
                self._by_start.setdefault(start, []).append((entry[1], entry))
            else:
                self._loose.append((entry[1], entry))
        self._words, self._starts = frozenset(self._by_word), frozenset(self._by_start)

    def said(self, text: str, have: frozenset[str]) -> list[tuple[int, str, T]]:
        """The entries whose phrase a text says, in no order; `have`: the text's words."""
        return [entry for entry in self.found(text, have) if says(text, entry[1])]

    def found(self, text: str, have: frozenset[str]) -> list[tuple[int, str, T]]:
        """The same, but whether each begins at a word is still to be seen."""
        known = self._by_word
        said = [entry for word in self._words & have for phrase, entry in known[word] if phrase in text]
        if self._loose:
            said += [entry for phrase, entry in self._loose if phrase in text]
        if self._foreign and not text.isascii():
            said += [entry for phrase, entry in self._foreign if phrase in text]
        if self._starts:
            known = self._by_start
            starts = self._starts.intersection([word[:_START] for word in have])
            said += [entry for start in starts for phrase, entry in known[start] if phrase in text]
        return said


_Entry: TypeAlias = tuple[str, tuple[int, str, T]]
_START: Final = 3
"""Letters of a word's begin by which phrases are laid out that have no whole word ..."""
_FEW: Final = 24
"""... if there are more than so many of them."""


def _whole_words(phrase: str) -> frozenset[str]:
    """The words of a phrase that are whole in every text that says it; the last may go on where the phrase ends."""
    return words(phrase.removesuffix(_last_word(phrase)))


def _last_word(phrase: str) -> str:
    """What the phrase ends with if that is a word, "" if it ends with a sign."""
    at = len(phrase)
    while at and phrase[at - 1].isalnum():
        at -= 1
    return phrase[at:]


_OUR_FAULT: Final = frozenset({
    "spam", "spammer", "spammers", "spamming", "junk", "blacklist", "blacklisted", "blocklist", "blocklisted",
    "denylist", "denylisted", "dnsbl", "rbl", "spamhaus", "reputation", "spf", "dkim", "dmarc", "ptr", "rdns", "dns",
    "reverse", "greylist", "greylisted", "greylisting", "graylist", "graylisted", "graylisting", "virus", "malware",
    "phishing", "banned", "policy", "policies", "relaying", "limit", "limits", "limited", "exceeded", "exceeds",
    "full", "quota", "overquota", "temporarily", "temporary", "later", "retry", "authentication", "authenticate",
    "unauthenticated", "starttls", "tls", "helo", "ehlo", "attachment", "attachments", "connections",
    "sender", "throttled", "throttling", "large", "password", "login", "outgoing", "abuse", "command", "count", "allowed",
    "authorized", "unauthorized", "family", "originating", "callback", "currently", "presently", "pending", "maintenance",
    "migrated", "migration", "payment", "backend", "restricted", "author", "submitting", "srs", "verp", "certificate", "writing", "derzeit", "momentan", "voruebergehend", "vorübergehend",
    "actuellement", "temporairement", "actualmente", "temporalmente", "attualmente", "temporaneamente", "temporariamente",
    # what passes
    "until", "till", "being", "while", "restored", "restoring", "recovery", "rebuilt", "rebuilding", "failover", "propagation", "renewal",
    "holidays", "vacation", "invoice", "unpaid", "resync", "synchronised", "synchronized", "provisioning", "activating",
    # what is not the recipient of this mail
    "authenticated", "originator", "receipts", "disposition", "bounces", "unregistered", "register", "sandbox", "tarpitted", "outsiders",
    "guessing", "licence", "license", "tenant", "appliance", "ldap", "column", "shard", "newsletter", "token", "challenge",
    "honeypot", "sinkhole", "hours", "encoding", "charset", "unqualified",
})  # fmt: skip
"""A reply with one of these words is about us, our mail or the moment, whatever else it says: it condemns no recipient."""
_OUR_FAULT_TOO: Final = (
    "too many", "undeliverable address: host", "your ip", "your domain", "your account", "your mailbox", "your server", "your host", "your provider",
    "your contract", "your subscription", "your network", "your client", "from address", "return address", "reply address", "client address",
    "in envelope", "in cc", "link to", "one address", "to send", "log in", "does not resolve",
    "your address", "your mail address", "your user", "your connection", "you send", "you write", "from-address",
    "user in from", "address in from", "source address", "envelope address", "bounce address", "return mailbox", "for sending",
    "the envelope", "bounce recipient", "return recipient", "smtp user", "relay user", "client account", "service account", "hosting account",
    "domain account", "domains account", "domain owner", "account you use", "cannot send", "may send", "this connection", "on port",
    "you are unknown", "unknown to recipient", "unknown to this recipient", "unknown to the recipient", "user agent", "your whitelist",
    "from outside", "external senders", "no permission", "or access", "or mail", "unknown domain or",
    "for now", "for the moment", "at the moment", "at this time", "at present", "locked out", "unlock", "will be reactivated",
    "database connection", "database error", "database not found", "table not found", "table missing", "list not found", "list is invalid",
    "book not found", "server not found", "record not found", "a record", "host address", "mx address", "key not found", "recipients header",
    "backup mx", "other mx", "another server", "wrong server", "this node", "is down", "connection lost", "in cache", "use the primary",
    # who is meant: whoever sends, an address in the header, several at once
    "you have no", "you are not a", "your own", "your company", "your customer", "your mailer", "your greeting", "claim to be", "known customer of", "customer list",
    "address as", "user as", "register at", "sign up", "reach you", "that sends", "sending user", "sending account", "cc recipient", "errors-to", "from: is", "reply-by", "reply address",
    "other recipients", "one of the", "at least one recipient", "per session", "not tried", "no account for", "unknown to you", "unknown to him", "unknown to her", "unknown to them",
    "link in", "links in", "invalid bounce", "never sent mail", "no reply", "no replies", "do-not-mail", "do not mail", "test addresses", "test mode", "mail notification", "filter rule", "may relay", "archive mailbox", "journal recipient", "for archiving", "other domain", "are an unknown",
    "who are you", "mailbox format", "mailbox flag", "user input", "unknown result", "lookup error", "one-time", "without domain", "missing its domain", "is missing a domain",
    # for whom it is so
    "the public", "internal address", "inside our", "inside the company", "exists only", "known only", "from the internet", "over ipv", "via ipv", "not confirmed",
    "or no right", "or hidden", "or has blocked", "or your", "or is blocked", "or was blocked", "or not allowed", "or closed to",
    # whose machine is at fault, and what passes
    "not available, user", "server is not available", "server not available", "directory server", "without directory", "user database", "table users", "relation mailbox", "alias expansion", "expansion failed",
    "home directory", "/home/", "not mounted", "not reachable", "the cache", "this gateway", "route is missing", "new storage", "forward target", "forwarding is", "forwarding fail", "next hop", "next mx",
    "could not be checked", "for lookups", "external people", "hybrid connector", "timeout of", "return-path", "the fax", "read-only mode", "for anonymous", "probe detected", "no longer confirmed",
    "this site has", "mx again", "not paid", "in progress", "under way", "exist yet", "users yet", "created yet", "out of the office", "on leave", "parental leave", "expected back",
)  # fmt: skip
_OUR_PHRASES: Final = Phrases((order, phrase, None) for order, phrase in enumerate(_OUR_FAULT_TOO))
_OUR_CODES: Final = frozenset({"5.1.7", "5.1.8", "5.7.8", "5.7.9", "5.7.13"})
"""RFC 3463 and its registry: the sender's address, the client's login."""
_ADDRESS: Final = re.compile(r"address:? ?[\[(]?\d{1,3}\.\d")
_THEIR_BLOCK: Final = (
    "account blocked", "account is blocked", "account has been blocked", "mailbox blocked", "mailbox is blocked", "mailbox has been blocked",
)  # fmt: skip
_DIRECTORY_SAYS_NO: Final = "5.4.1"
"""Microsoft's code for an address that its directory does not know; it says "Access denied" and means that."""


def fits(rule: Rule, heard: Heard) -> bool:
    """Whether a reply meets the conditions of a rule besides its code and its first phrases."""
    if rule.statuses and heard.enhanced not in rule.statuses:
        return False
    if heard.command in _BEFORE_RECIPIENT and _about_what_came_later(rule, heard.command):
        return False
    if rule.reaction is Reaction.SUPPRESS and heard.remote:
        if not (heard.code or heard.enhanced):
            return False  # a server that forgets its code may mean anything
        if _is_about_us(heard):
            return False
    if rule.commands and heard.command not in rule.commands:
        return False
    text = heard.text
    for phrase in rule.all_of:
        if not says(text, phrase):
            return False
    for phrase in rule.none_of:
        if phrase in text and says(text, phrase):
            return False
    return rule.pattern is None or _pattern_fits(rule, heard)


def _is_about_us(heard: Heard) -> bool:
    """Whether a reply gives any sign that it is not the recipient who is at fault."""
    text, have = heard.text, heard.words
    if not _OUR_FAULT.isdisjoint(have) or heard.enhanced in _OUR_CODES:
        return True
    if len(heard.enhanced) == 6 and heard.enhanced.startswith("5.7.2"):  # RFC 7372: authentication of the message
        return True
    if "address" in have and _ADDRESS.search(text):
        return True
    if "blocked" in have and not any(phrase in text for phrase in _THEIR_BLOCK):
        return True
    if "denied" in have and "access denied" in text and heard.enhanced != _DIRECTORY_SAYS_NO:
        return True
    return bool(_OUR_PHRASES.found(text, have))


def _about_what_came_later(rule: Rule, command: str) -> bool:
    return rule.reaction is Reaction.SUPPRESS or (command == "greeting" and rule.scope is Scope.MESSAGE)


def _pattern_fits(rule: Rule, heard: Heard) -> bool:
    """A group named recipient_domain must be the recipient's domain, where that is known."""
    assert rule.pattern is not None
    found = rule.pattern.search(heard.text)
    if found is None or not heard.recipient_domain or "recipient_domain" not in rule.pattern.groupindex:
        return found is not None
    return found["recipient_domain"] == heard.recipient_domain


class _Bucket(NamedTuple):
    """The rules that one SMTP code leaves."""

    phrases: Phrases[Rule]
    by_status: dict[str, list[tuple[int, str, Rule]]]
    """Those that have enhanced codes and no phrase."""


class Table:
    """Rules in the order in which they are asked."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._named = frozenset(code for rule in self.rules for code in rule.codes)
        self._buckets: dict[str, _Bucket] = {}
        self._usual = Counter(
            word for rule in self.rules for example in rule.examples for word in words(normalise(example))
        )

    def find(self, heard: Heard) -> Rule | None:
        """The first rule that fits."""
        bucket = self._bucket(heard)
        text = heard.text
        entries = bucket.phrases.found(text, heard.words)
        if heard.enhanced in bucket.by_status:
            entries += bucket.by_status[heard.enhanced]
        if len(entries) > 1:
            entries.sort()
        for _, phrase, rule in entries:
            if says(text, phrase) and fits(rule, heard):
                return rule
        return None

    def _bucket(self, heard: Heard) -> _Bucket:
        """One for each code that a rule names, one for the others of a class, one a class for no code at all."""
        code = heard.code
        if code not in self._named:
            code = f"{code[0]}xx" if code else f"{heard.enhanced[:1]}??"
        bucket = self._buckets.get(code)
        if bucket is None:
            bucket = self._buckets[code] = _lay_out((rule for rule in self.rules if _takes(rule, code)), self._usual)
        return bucket


def _takes(rule: Rule, code: str) -> bool:
    """Whether a rule is for "550", for "5xx" (a code that no rule names), "5??" or "??" (a reply without a code)."""
    if not rule.codes:
        return True
    if code.endswith("??"):  # what could be meant, but not where the code is all that the rule knows
        known = rule.any_of or rule.all_of or rule.statuses
        return bool(known) and (code == "??" or any(code[0] == one[0] for one in rule.codes))
    return code in rule.codes or f"{code[0]}xx" in rule.codes


def _lay_out(rules: Iterable[Rule], usual: Mapping[str, int]) -> _Bucket:
    phrases: list[tuple[int, str, Rule]] = []
    by_status: dict[str, list[tuple[int, str, Rule]]] = {}
    order = 0
    for rule in rules:
        for phrase in rule.any_of or rule.all_of[:1] or ("",):
            order += 1
            if phrase or not rule.statuses:
                phrases.append((order, phrase, rule))
                continue
            for status in rule.statuses:
                by_status.setdefault(status, []).append((order, phrase, rule))
    return _Bucket(Phrases(phrases, usual), by_status)
