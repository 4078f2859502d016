"""Whom the feeds are asked about: what core's store and Postfix's configuration tell of it."""

import time
from pathlib import Path

from parsers.postfix.facts import DkimSigned
from parsers.record import LogRecord
from policies.commands import Attempt
from policies.engine import Engine
from policies.senders import Habit
from policies.site import Settings
from sidecar import rules, scope
from sidecar.config import Config, OutsideConfig, PostfixConfig, StoreConfig
from sidecar.postfix import Instance
from sidecar.postfix_configuration import Configuration, Service
from sidecar.store import Store
from sidecar.store_rows import Commit, LearnedRow
from tests.world import RULES


def attempt(domain: str, moment: float) -> Attempt:
    texts = dict.fromkeys(Attempt._fields, "")
    return Attempt(**{**texts, "time": moment, "sender_domain": domain, "delay": 1.0, "first": 0})  # type: ignore[arg-type]  # by name


def test_what_core_saw(tmp_path: Path) -> None:
    now = time.time()
    sent = [("now.example", 60), ("today.example", 7200), ("", 1), ("now.example", 90), ("long-ago.example", 900_000)]
    store = Store.open(tmp_path / "core.db")
    store.commit(
        Commit(
            attempts=[attempt(domain, now - ago) for domain, ago in sent],
            learned=[
                LearnedRow("dkim-domain", "now.example", "d.example", now),
                LearnedRow("dkim-selector", "d.example", "s1", now - 5),
                LearnedRow("from-domain", "now.example", "f.example", now),
            ],
        )
    )
    store.close()
    outside = OutsideConfig(addresses=("192.0.2.7",), domains=("ours.example",))
    nowhere = PostfixConfig(config_directory=str(tmp_path / "none"))
    found = scope.find(Config(store=StoreConfig(path=str(tmp_path)), outside=outside, postfix=nowhere))
    assert found.domains == ("ours.example", "now.example", "today.example")
    assert found.active == ("now.example",)
    assert found.signers == (("now.example", "d.example"),)
    assert found.selectors == (("d.example", "s1", now - 5),)
    assert found.addresses == ("192.0.2.7",)


def client(name: str, **settings: str) -> Service:
    return Service(name, "unix", "y", "-", "smtp", settings, settings, "")


def test_what_an_address_greets_with() -> None:
    instance = Instance("-", "postfix", Path("/c"), Path("/q"), Path("/d"), {})
    expanded = {"smtp_helo_name": "mx.example", "smtp_bind_address": "", "smtp_bind_address6": ""}
    lanes = (
        client("smtp"),
        client("lane-01", smtp_bind_address="192.0.2.7", smtp_helo_name="one.example"),
        client("lane-02", smtp_bind_address="192.0.2.8", smtp_bind_address6="[2001:db8::8]"),
    )
    names = list(scope.greeted(Configuration(instance, {}, {}, expanded, lanes)))
    assert dict(scope._helos(("192.0.2.7", "192.0.2.8", "2001:db8::8", "198.51.100.1"), names)) == {
        "192.0.2.7": "one.example",
        "192.0.2.8": "mx.example",
        "2001:db8::8": "mx.example",
        "198.51.100.1": "mx.example",
    }
    others = (*lanes, client("relay", smtp_helo_name="relay.example"))
    names = list(scope.greeted(Configuration(instance, {}, {}, expanded, others)))
    assert dict(scope._helos(("198.51.100.1", "192.0.2.7"), names)) == {"192.0.2.7": "one.example"}


def test_keys_that_our_signer_uses_are_told_every_six_hours() -> None:
    engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
    told = []
    for moment in (0.0, 60.0, 21_600.0, 21_700.0):
        record = LogRecord(moment, "mx1", "", "", "opendkim", 1, "")
        engine.observe(DkimSigned(record, "4bXyZ1234z", "D.example", "S1"), now=moment)
        told.append(engine.habits.learned)
        engine.habits.learned = []
    habit = Habit("dkim-selector", "d.example", "s1")
    assert told == [[habit], [], [habit], []]
