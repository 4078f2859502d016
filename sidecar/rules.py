"""The rules for replies in force: those that come with the package, under the admin's own.

Reads files; what stands in them is `policies`' business.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Final

from publicsuffixlist import PublicSuffixList

from policies.classify import RuleSet
from policies.lint import lint_text, lint_together
from policies.rules import Provider, RuleError, parse_provider
from sidecar.config import ConfigError

__all__ = ["RuleError", "admin_files", "lint_files", "load", "organizational_domain", "packaged", "packaged_files"]

GENERIC: Final = ("lists", "gateways", "texts", "words", "status", "postfix")
"""Rules for any server, in the order in which they are asked; after the provider's."""


def packaged_files() -> Iterator[tuple[str, str]]:
    """(name, text) of every file of rules in the package, in order of precedence."""
    package = resources.files("policies")
    for file in sorted(package.joinpath("providers").iterdir(), key=lambda file: file.name.removesuffix(".toml")):
        if file.name.endswith(".toml"):
            yield f"providers/{file.name}", file.read_text(encoding="utf-8")
    for name in GENERIC:
        yield f"generic/{name}.toml", package.joinpath("generic", f"{name}.toml").read_text(encoding="utf-8")


def admin_files(directory: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of every *.toml in an admin's directory, by name. Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError(f"rules.directory: {directory} is no directory; wanted one with *.toml, or leave it out")
    for file in sorted(directory.glob("*.toml")):
        try:
            yield str(file), file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: byte {error.start} is not UTF-8; wanted UTF-8 text") from error


def load(directory: str = "") -> RuleSet:
    """All rules; those of the admin's directory ("": none) go first and are linted.

    A file of the admin's with a name of ours goes before ours, and a rule in it with the name of one of ours replaces
    that one. Raises ConfigError for a directory or file that cannot be read, RuleError for what stands in it.
    """
    return together(own_providers(directory))


def own_providers(directory: str) -> tuple[Provider, ...]:
    """Read and lint the admin's directory ("": none). Raises as `load`."""
    own = dict(admin_files(Path(directory))) if directory else {}
    providers, faults = lint_files(own, packaged())
    if faults:
        raise faults[0]
    return providers


def together(own: Sequence[Provider]) -> RuleSet:
    """Put the admin's rules above ours. Raises RuleError where one leans on a provider that there is not."""
    return RuleSet([*own, *packaged()], organizational=organizational_domain)


def lint_files(
    texts: Mapping[str, str], below: Sequence[Provider] = ()
) -> tuple[tuple[Provider, ...], list[RuleError]]:
    """Read and lint files of rules (name -> text) that go before those `below`, each and together.

    Where one of them cannot be used, how they stand together is not looked at.
    """
    read = [lint_text(name, text) for name, text in texts.items()]
    faults = [fault for _, found in read for fault in found]
    providers = tuple(provider for provider, _ in read if provider is not None)
    if len(providers) == len(texts) > 0:
        try:
            together = lint_together([*providers, *below], texts, organizational_domain)
        except RuleError as fault:
            together = [fault]
        known = {(fault.file, fault.rule, fault.said) for fault in faults}
        new = [fault for fault in together if (fault.file, fault.rule, fault.said) not in known]
        faults += [fault.located(texts[fault.file]) for fault in new]
    return providers, faults


@cache
def packaged() -> tuple[Provider, ...]:
    """Ours, linted by the test suite and so not again on each start."""
    return tuple(parse_provider(name, text) for name, text in packaged_files())


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=20_000)
def organizational_domain(domain: str) -> str:
    """example.co.uk for mail.example.co.uk (RFC 7489 section 3.2), by the Public Suffix List; a suffix gives itself."""
    return _public_suffixes().privatesuffix(domain) or domain
