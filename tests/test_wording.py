"""A reply condemns a recipient by words of which such replies are made, and by no other."""

import time

import pytest

from policies.classify import Said
from policies.verdict import Bounce, Reaction
from sidecar.rules import load

RULES = load()


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 <nobody@example.net>: Recipient address rejected: User unknown in virtual mailbox table",
        "550 No such user jsmith",
        "550 5.1.1 jsmith: no such mailbox here",
        "550 SomeGateway: No such mailbox here",
        "550 5.1.1 Your message could not be delivered, user unknown. Please check your spelling (ref 7f3a91-bc)",
        "550 5.1.1 nobody@example.net user unknown. See https://help.example.net/why?id=4711",
        "550 5.1.1 Der Benutzer ist hier nicht bekannt",
        "550 Получатель не найден",
        "550 5.1.1 nobody@example.net user unknown, hints on orthography in our brochure",
    ],
)
def test_words_that_condemn(reply: str) -> None:
    verdict = RULES.classify(Said(reply, "mx.example.net", "", "RCPT TO"))
    assert (verdict.category, verdict.bounce, verdict.reaction) == ("recipient", Bounce.HARD, Reaction.SUPPRESS)


@pytest.mark.parametrize(
    "reply",
    [
        "550 User unknown in the region this cluster serves",
        "550 No such mailbox in staging environment",
        "550 user unknown (nightly import running)",
        "550 mailbox disabled by fraud protection",
        "550 mailbox does not exist. Quarterly archive job holds it",
    ],
)
def test_a_strange_word_spares_the_recipient_and_leaves_the_cause(reply: str) -> None:
    verdict = RULES.classify(Said(reply, "mx.example.net", "", "RCPT TO"))
    assert (verdict.category, verdict.bounce, verdict.reaction) == ("recipient", Bounce.SOFT, Reaction.NOTHING)


def test_a_rule_vouches_for_the_words_of_its_own_phrases() -> None:
    own = """
        said_by = "any"
        [[rule]]
        name = "gone"
        code = ["5xx"]
        any = ["flibbertigibbet departed"]
        detail = "recipient.unknown"
        scope = "recipient"
        bounce = "hard"
        reaction = "suppress"
        examples = ["550 flibbertigibbet departed yesterday"]
    """
    rules = type(RULES).read([("own.toml", own)])
    assert rules.classify(Said("550 flibbertigibbet departed")).reaction is Reaction.SUPPRESS
    assert rules.classify(Said("550 flibbertigibbet departed yesterday")).reaction is Reaction.SUPPRESS
    assert rules.classify(Said("550 flibbertigibbet departed into quarantine zone")).reaction is Reaction.NOTHING


def test_long_replies_of_strange_words_are_read_in_time() -> None:
    before = time.process_time()
    for text in ("<" * 4000, "[" * 4000, "a" * 4000, "a." * 2000, "user: " * 700, '"(' * 2000, "rcpt: x " * 500):
        RULES.classify_anew(Said(f"550 5.1.1 user unknown {text}"))
    assert time.process_time() - before < 60
