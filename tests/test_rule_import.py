"""`sidecar rules import`: what becomes of another mail server's rules, that it is sound here, and what is told of it.

tests/foreign holds files made for this, each with what is written (.rules) and what is reported (.report).
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.classify import Said
from policies.foreign_dialect import PatternError
from policies.foreign_pattern import searching, take_apart
from policies.foreign_rules import CLASSES, FormatError
from policies.rule import DETAILS
from policies.rule_import import Imported, Outcome, import_rules
from sidecar.config import Config
from sidecar.rule_commands import import_command, lint_command
from sidecar.rules import lint_files, load, organizational_domain, packaged

HERE = Path(__file__).parent
FOREIGN = sorted(path for path in (HERE / "foreign").iterdir() if path.suffix in {".toml", ".conf"})


def imported(text: str, *more: str, suppress: bool = False, only_unknown: bool = False) -> Imported:
    texts = {f"theirs{number or ''}.toml": each for number, each in enumerate((text, *more))}
    return import_rules(texts, packaged(), organizational_domain, suppress=suppress, only_unknown=only_unknown)


@pytest.mark.parametrize("file", FOREIGN, ids=lambda file: file.name)
def test_what_is_written_and_what_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    result = CliRunner().invoke(import_command, [file.name], obj=Config())
    assert result.exit_code == 0
    assert result.stdout == file.with_suffix(".rules").read_text()
    told = [line for line in result.stderr.splitlines() if not line.startswith("    without it, ")]  # our rules change
    assert told == file.with_suffix(".report").read_text().splitlines()


@pytest.mark.parametrize("words", [[], ["--suppress"], ["--only-unknown"]], ids=str)
@pytest.mark.parametrize("file", FOREIGN, ids=lambda file: file.name)
def test_what_is_written_passes_lint_and_is_what_core_takes(file: Path, words: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "rules"
    result = CliRunner().invoke(import_command, [str(file), "--output", str(directory), *words], obj=Config())
    assert (result.exit_code, result.stdout) == (0, "")
    assert CliRunner().invoke(lint_command, [str(directory)], obj=Config()).exit_code == 0
    assert len(load(str(directory)).rules) > len(load().rules)

    result = CliRunner().invoke(
        import_command, [str(file), "--output", str(directory)], obj=Config(), standalone_mode=False
    )
    assert "is there already" in str(result.exception)


def test_the_report_as_json() -> None:
    result = CliRunner().invoke(import_command, [*map(str, FOREIGN), "--json"], obj=Config())
    told = json.loads(result.stdout)
    assert {"shaping.toml", "yahoo.toml", "classes.toml", "powermta.toml"} <= told["files"].keys()
    dead = [rule for rule in told["rules"] if rule["outcome"] == "dead"]
    assert {rule["line"] for rule in dead if rule["source"].endswith("shaping.toml")} >= {31, 44, 49, 68}
    assert all(rule["why"] for rule in told["rules"] if rule["outcome"] != "carried")


def test_only_when_asked_does_an_imported_rule_suppress() -> None:
    text = '[rules]\nInvalidRecipient = ["^550.+nobody of this name", "^4\\\\d\\\\d.+nobody of that name"]\n'
    assert "suppress" not in "".join(imported(text).files.values())
    written = imported(text, suppress=True).files["theirs.toml"]
    assert written.count('reaction = "suppress"') == 1
    assert written.count('bounce = "soft"') == 1


def test_files_that_are_laid_over_each_other_are_read_together() -> None:
    rules = '[[provider."p".automation]]\nregex = "go slower please"\naction = "Suspend"\nduration = "1h"\n'
    match = '[provider."p"]\nmatch = [{MXSuffix = ".p.example"}]\n'
    assert imported(rules).report[0].outcome is Outcome.DEAD
    assert imported(match, rules).report[0].rule == "p/go-slower-please"
    assert imported(rules, match).report[0].rule == "p/go-slower-please"


def test_a_known_host_gives_the_provider_its_name_here() -> None:
    text = """
[provider."gmail"]
match = [{MXSuffix = ".google.com"}]
[[provider."gmail".automation]]
regex = "Xyzzy happens"
action = "SuspendTenant"
duration = "1h"
"""
    found = imported(text)
    assert list(found.files) == ["google.toml"]
    own, faults = lint_files(found.files, packaged())
    assert not faults
    assert own[0].name == "google"


def test_a_pattern_twice_is_known_the_second_time() -> None:
    rule = '[[default.automation]]\nregex = "go slower please"\naction = "Suspend"\nduration = "1h"\n'
    one, two = imported(rule + rule).report
    assert (one.outcome, two.outcome) == (Outcome.CARRIED, Outcome.KNOWN)
    assert "takes everything" in two.why


def test_a_narrow_pattern_goes_before_a_wide_one_where_both_would_act() -> None:
    block = '[["shop.example".automation]]\nregex = "%s"\naction = "%s"\nduration = "1h"\n'
    found = imported(block % ("ZZ0000", "Suspend") + block % ("ZZ000010", "SuspendTenant"))
    assert [line.outcome for line in found.report] == [Outcome.CARRIED, Outcome.CARRIED]
    written = found.files["shop-example.toml"]
    assert written.index('name = "zz000010"') < written.index('name = "zz0000"')


def test_shadowed_is_only_what_is_taken_with_every_code_and_wherever_it_stands() -> None:
    text = "[rules]\nSpamBlock = ['^550 5\\.7\\.1']\nSpamContent = ['^5\\d\\d 5\\.7\\.1 odd', '^550.+5\\.7\\.1 odd', '^550 5\\.7\\.1 odd']\n"
    _, *lines = imported(text).report
    assert [line.outcome is Outcome.DEAD for line in lines] == [False, False, True]


def test_only_unknown_leaves_out_what_our_rules_read() -> None:
    text = '[rules]\nSpamBlock = ["blocked using zen.spamhaus.org", "Xyzzy has you on a list"]\n'
    one, two = imported(text, only_unknown=True).report
    assert (one.outcome, two.outcome) == (Outcome.KNOWN, Outcome.CARRIED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rules found"),
        ("x = [", "neither PowerMTA's lists nor valid TOML"),
        ("{", "neither PowerMTA's lists nor valid TOML or JSON"),
        ("connection_limit = 3", "no rules found"),
    ],
)
def test_a_file_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "theirs"
    file.write_text(text)
    result = CliRunner().invoke(import_command, [str(file)], obj=Config())
    assert str(result.exception).startswith(f"{file}: {message}")


def test_every_class_means_something_that_there_is() -> None:
    assert {meaning.detail for meaning in CLASSES.values() if not meaning.why_not} <= set(DETAILS)


@pytest.mark.parametrize(
    ("pattern", "codes", "statuses", "phrases", "reply"),
    [
        (r"421 4\.7\.0 \[TSS04\]", ["421"], ["4.7.0"], ["[tss04]"], ""),
        (r"^(451|550) [45]\.1\.[12] ", ["451", "550"], ["x.1.1", "x.1.2"], [], ""),
        (r"^5\d{2} [45]\.7\.17 ", ["5xx"], ["x.7.17"], [], ""),
        (r"^\d{3} [45]\.5\.\d+ ", [], ["x.5.0-999"], [], ""),
        (r"^55[24] 5\.3\.4", ["552", "554"], ["5.3.4"], [], ""),
        (r"^550.+5\.7\.515 Access denied.+From", ["550"], ["5.7.515"], ["access denied", "from"], ""),
        ("554.*Reject due to policy.", ["554"], [], ["reject due to policy"], ""),
        (r"traffic from \d+\.\d+\.\d+\.\d+ weren.t sent", [], [], ["traffic from", "weren", "sent"],
         "traffic from [0-9a-f.:]{7,39} weren.?t sent"),
        ("mailbox +(is +)?full", [], [], ["mailbox full", "mailbox is full"], ""),
        ("^550.+User.+unknown$", ["550"], [], ["user", "unknown"], "user.{1,120}unknown$"),
        ("(?i)out[[:space:]]of[[:space:]]room", [], [], ["out of room"], ""),
        (r"\Qno [such] user\E", [], [], ["no [such] user"], ""),
        (r"he said \"it's e-mail\"", [], [], ["he said its mail"], ""),
        (r"\S+@\S+ unknown here", [], [], ["unknown here"], r"[\S]{1,60}@[\S]{1,60} unknown here"),
        ("421dynt1", [], [], ["421dynt1"], ""),
        ("stuffed (box of this one)", [], [], ["stuffed", "box of this one"], ""),
    ],
)  # fmt: skip
def test_a_pattern_taken_apart(
    pattern: str, codes: list[str], statuses: list[str], phrases: list[str], reply: str
) -> None:
    parts = take_apart(pattern, begins_with="code")
    assert (list(parts.codes), list(parts.statuses)) == (codes, statuses)
    assert [*parts.any_of, *parts.all_of] == phrases
    assert parts.reply == reply
    assert not parts.dead


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "matches every reply"),
        (".*", "matches every reply"),
        (r"\d+", "no fixed words"),
        (r"\p{L}+ is bad", "Unicode property"),
        (r"a\Kb", "keep"),
        ("(?R)", "recursion"),
        ("(?<!not )slow", "look-around"),
        (r"(a)\1 twice", "references"),
        ("fix (?i)me", "middle"),
        ("(broken", "not a regular expression"),
        ("(?:a+)+(?:b+)+(?:c+)+", "no fixed words"),
        ("[[:nonsense:]]", "unknown class"),
    ],
)
def test_a_pattern_that_cannot_be_carried_over(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        take_apart(pattern, begins_with="code")


PIECES = ["550", "^", "$", " ", "[45]", r"\.", r"\d", r"\d{3}", "+", "*", "?", "{2,3}", "(", ")", "(?:", "|", "[", "]", "word",
          "'", '"', "mail", "e-mail", ".", ".*", r"\b", r"\\", r"\S+", "(?i)", "[[:digit:]]", r"\x{41}", "(?=", "5.1.1"]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
def test_any_pattern_is_taken_apart_or_refused(pattern: str) -> None:
    search = searching(pattern, ignore_case=True)
    if search is not None:
        assert search("550 5.1.1 word") in {True, False}
    try:
        parts = take_apart(pattern, begins_with="code")
    except PatternError:
        return
    assert parts.dead or parts.codes or parts.statuses or parts.any_of or parts.all_of


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
    st.sampled_from(["PolicyRelated", "BadDomain", "SpamBlock"]),
)
def test_whatever_is_carried_over_is_sound(pattern: str, name: str) -> None:
    found = imported(f"[rules]\n{name} = [{json.dumps(pattern)}]\n", suppress=True)
    assert lint_files(found.files, packaged())[1] == []
    assert len(found.report) == 1


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet='[]{}"=.,\nrulesautomation /<>#', max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    for each in (text, f"<smtp-pattern-list x>\n{text}", f'[[default.automation]]\nregex = "x"\n{text}'):
        try:
            assert isinstance(imported(each), Imported)
        except FormatError as error:
            assert str(error)  # noqa: PT017  # the other outcome is as good


def test_what_an_imported_rule_says_of_a_reply(tmp_path: Path) -> None:
    CliRunner().invoke(
        import_command, [str(HERE / "foreign" / "shaping.toml"), "--output", str(tmp_path)], obj=Config()
    )
    rules = load(str(tmp_path))
    said = rules.classify(Said("421 4.7.0 [XYZ04] wait a while", "mta5.am0.yahoodns.net"))
    assert (said.provider, said.rule, said.reaction) == ("yahoo", "yahoo/xyz04", "slow-ip")
    assert rules.opening("yahoo/xyz04").pause == 7200
    assert rules.classify(Said("451 Volume of your domain is high", "mx.other.example")).reaction == "pause-domain"
