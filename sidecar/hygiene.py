"""List hygiene's configuration and lists, read and checked; what is done with them is `policies.hygiene`'s business."""

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from policies.hygiene import Check, Hygiene, Level, Levels, Lists
from sidecar.config import ConfigError, HygieneConfig, HygieneScopeConfig


def open_hygiene(ours: HygieneConfig, *, file: Path) -> Hygiene | None:
    """Give what the configuration asks for, None where everything is off. Raises ConfigError."""
    by_tenant: dict[str, Levels] = {}
    by_domain: dict[str, Levels] = {}
    for number, scope in enumerate(ours.scope):
        key = f"{file}: hygiene.scope[{number}]"
        if bool(scope.tenant) is bool(scope.sending_domain):
            raise ConfigError(f"{key}: wanted either tenant or sending_domain")
        chosen, name = (by_tenant, scope.tenant) if scope.tenant else (by_domain, scope.sending_domain.lower())
        if name in chosen:
            raise ConfigError(f"{key}: {name} has a scope before it; wanted one")
        chosen[name] = _levels(scope)
    levels = _levels(ours)
    lists = _lists(ours, file)
    verify = frozenset(domain.lower() for domain in ours.verify_domains)
    if levels_in(ours) == {Level.OFF} and not verify:
        return None
    return Hygiene(levels, lists, by_tenant=by_tenant, by_sending_domain=by_domain, verify=verify)


def _levels(row: HygieneConfig | HygieneScopeConfig) -> Levels:
    return Levels(row.syntax, row.null_mx, row.no_host, row.typo, row.disposable, row.role)


def levels_in(ours: HygieneConfig) -> set[Level]:
    """All that is done about any check for any mail."""
    levels = (_levels(ours), *map(_levels, ours.scope))
    return {getattr(each, check) for each in levels for check in Check}


def judges_hosts(ours: HygieneConfig) -> bool:
    """Whether any mail is judged by what the DNS denies."""
    return any(each.no_host is not Level.OFF for each in (_levels(ours), *map(_levels, ours.scope)))


@cache
def packaged() -> Lists:
    """Ours."""
    text = resources.files("policies").joinpath("hygiene_lists.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return Lists(table["typos"], frozenset(table["lists"]["disposable"]), frozenset(table["lists"]["roles"]))


def _lists(ours: HygieneConfig, file: Path) -> Lists:
    lists = packaged()
    if ours.typo_file:
        rows = _rows(ours.typo_file, 2, f"{file}: hygiene.typo_file")
        lists = lists._replace(typos=dict(rows))
    if ours.disposable_file:
        rows = _rows(ours.disposable_file, 1, f"{file}: hygiene.disposable_file")
        lists = lists._replace(disposable=frozenset(word for (word,) in rows))
    if ours.role_file:
        rows = _rows(ours.role_file, 1, f"{file}: hygiene.role_file")
        lists = lists._replace(roles=frozenset(word for (word,) in rows))
    return lists


def _rows(path: str, words: int, key: str) -> list[list[str]]:
    """Lower-case words of each line; what stands behind a # is for people. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path}: byte {error.start} is not UTF-8; wanted UTF-8 text") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.partition("#")[0].lower().split()
        if row and len(row) != words:
            wanted = "one word" if words == 1 else "two domains, the wrong one first"
            raise ConfigError(f"{key}: {path}: line {number}: found {line.strip()!r}, wanted {wanted}")
        if row:
            rows.append(row)
    return rows
