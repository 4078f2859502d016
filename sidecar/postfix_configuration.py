"""One instance's main.cf and master.cf in memory, as postconf tells them: what each service has in effect.

Reads, and never writes; knows the columns of master(5) and no meaning of any parameter.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sidecar import postfix
from sidecar.postfix import Instance


class Service(NamedTuple):
    """One entry of master.cf."""

    name: str
    """"smtp", "submission", "127.0.0.1:10025"."""
    type: str
    """inet, unix, pass, fifo."""
    chroot: str
    """"y", "n", or "-" for the default."""
    maxproc: str
    command: str
    """Program: smtpd, smtp, postscreen."""
    overrides: Mapping[str, str]
    """`-o` settings, unexpanded."""
    expanded: Mapping[str, str]
    """The same with `$name` replaced."""
    line: str
    """As `postconf -M` prints it."""

    @property
    def id(self) -> str:
        """Name and type, as postconf -M and -P have it: submission/inet."""
        return f"{self.name}/{self.type}"


class Configuration(NamedTuple):
    """What postconf says of one instance."""

    instance: Instance
    values: Mapping[str, str]
    """Every parameter in effect, unexpanded."""
    own: Mapping[str, str]
    """Those that main.cf itself sets, unexpanded."""
    expanded: Mapping[str, str]
    """Every parameter in effect, with `$name` replaced."""
    services: tuple[Service, ...]

    def effective(self, service: Service, name: str) -> str:
        """A parameter as a service has it, expanded: its override, else main.cf's."""
        return service.expanded.get(name, self.expanded.get(name, ""))

    def written(self, service: Service, name: str) -> str:
        """The same, unexpanded."""
        return service.overrides.get(name, self.values.get(name, ""))

    def smtpd(self) -> list[Service]:
        """The services that run smtpd, in the order of master.cf."""
        return [service for service in self.services if service.command == "smtpd"]

    def service(self, name: str, kind: str) -> Service | None:
        return next((one for one in self.services if (one.name, one.type) == (name, kind)), None)


def read(instance: Instance) -> Configuration:
    """Read main.cf and master.cf through postconf. Raises PostfixError."""
    directory = instance.config_directory
    own = postfix.own_settings(directory)
    overrides, expanded = (_by_service(postfix.service_settings(directory, expand=expand)) for expand in (False, True))
    services = []
    for line in postfix.services(directory):
        fields = line.split()
        if len(fields) >= 8:
            name, kind, _, _, chroot, _, maxproc, command = fields[:8]
            key = f"{name}/{kind}"
            services.append(
                Service(name, kind, chroot, maxproc, command, overrides.get(key, {}), expanded.get(key, {}), line)
            )
    return Configuration(
        instance,
        {**postfix.parameters(directory, expand=False), **own},
        own,
        {**postfix.parameters(directory), **postfix.own_settings(directory, expand=True)},
        tuple(services),
    )


def _by_service(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """service/type/parameter -> value, as service/type -> parameter -> value."""
    found: dict[str, dict[str, str]] = {}
    for name, value in settings.items():
        service, _, parameter = name.rpartition("/")
        found.setdefault(service, {})[parameter] = value
    return found
