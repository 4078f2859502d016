"""The `sidecar` program: the table of its commands, and what becomes of their errors.

Imports a command's module only when that command runs: core must not carry pandas, nor `parse` a web server.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

from sidecar.config import DEFAULT_PATH, Config, ConfigError, load


class Entry(NamedTuple):
    where: str
    """module:attribute"""
    about: str
    configured: bool = True
    """Reads the configuration; else only one that --config names, so that it works for anybody anywhere."""
    recover: str = ""
    """module:function that gives another configuration where this one is broken; "": the command fails."""


COMMANDS: Mapping[str, Entry] = {
    "run": Entry("sidecar.supervise:run", "All of it on this host."),
    "core": Entry("sidecar.core:core", "One process: log, decisions, policy sockets."),
    "outside": Entry("sidecar.outside:outside", "One process: look-ups, feeds, alerts, status page, /metrics."),
    "queue-gate": Entry(
        "sidecar.queue_gate:queue_gate", "Let another host's core work on this host's queue, over SSH."
    ),
    "queue-helper": Entry("sidecar.queue_helper:queue_helper", "One process: holds and releases, as root."),
    "status": Entry("sidecar.status:status", "Sub-queues, held mail, lag."),
    "subqueue": Entry("sidecar.status:subqueue", "Sub-queues by hand."),
    "requeue": Entry("sidecar.requeue_command:requeue", "Lead queued mail away from a transport, paced."),
    "fleet": Entry("sidecar.fleet_command:fleet", "The hosts that share what they learn."),
    "suppress": Entry("sidecar.suppress_command:suppress", "Who gets no more mail."),
    "quota": Entry("sidecar.quota_command:quota", "How much a tenant, domain, client or sender may hand in."),
    "reload": Entry("sidecar.status:reload", "Have core read configuration and rules again."),
    "pool": Entry("sidecar.pool_commands:pool", "IP pools: who is in, who is out, and why."),
    "warmup": Entry("sidecar.pool_commands:warmup", "How far addresses have been warmed up."),
    "canary": Entry("sidecar.pool_commands:canary", "Mail tried on a share first: compare, promote, stop."),
    "react": Entry("sidecar.pool_commands:react", "What is done about bad signs; undo it."),
    "parse": Entry("sidecar.parse:parse", "Log lines to facts.", configured=False),
    "classify": Entry("sidecar.classify:classify", "What a reply means.", configured=False),
    "rules": Entry("sidecar.rule_commands:rules", "Rules for replies: lint, import."),
    "explain": Entry("sidecar.explain:command", "Each log line with its fact, its rule and the change."),
    "replay": Entry("sidecar.replay:replay", "Back-test: what the rules would have done to a log."),
    "report": Entry("sidecar.history_command:report", "What became of the mail: rates, times, trends."),
    "feeds": Entry("sidecar.feeds_command:feeds", "Where each feed stands."),
    "poll": Entry("sidecar.feeds_command:poll", "Ask one feed now."),
    "login": Entry("sidecar.login:login", "A person's consent for a feed that needs one."),
    "seedtest": Entry("sidecar.seedtest_command:seedtest", "Where mail to mailboxes of ours lands."),
    "ingest": Entry("sidecar.report_command:ingest", "Take report mail in by hand."),
    "report-mail": Entry("sidecar.report_command:report_mail", "Take one report mail from a pipe.", configured=False),
    "alert": Entry("sidecar.alerts_command:alert", "What fires; try the channels."),
    "incident": Entry("sidecar.alerts_command:incident", "Incidents: look, take on, close."),
    "delist": Entry("sidecar.delist:delist", "How an address comes off lists; a request filled in."),
    "password": Entry("sidecar.page.passwords:password", "Who may see the status page.", configured=False),
    "audit": Entry("sidecar.audit_command:audit", "What was done to mail, why and by whom."),
    "ask": Entry("sidecar.ask:ask", "What the policy daemon would answer now."),
    "check": Entry("sidecar.check:check", "Configuration, wiring, what is missing."),
    "postfix": Entry("sidecar.wiring:postfix_command", "The wiring in main.cf and master.cf: show, apply, remove."),
    "failsafe": Entry(
        "sidecar.failsafe:failsafe",
        "Release what is held when core is silent for too long.",
        recover="sidecar.in_force:recover",
    ),
    "backup": Entry("sidecar.backup_command:backup", "A copy of both stores, made while they are written."),
    "restore": Entry("sidecar.backup_command:restore", "Put a backup in place."),
    "lab": Entry("sidecar.lab.command:lab", "A private Postfix, simulated providers, a fleet.", configured=False),
}

EXIT_STATUSES: Mapping[str, int] = {
    "sidecar.toml_table.ConfigError": 2,
    "sidecar.postfix.PostfixError": 2,
    "sidecar.bulk.ParseError": 2,
    "sidecar.database.StoreError": 2,
    "sidecar.clickhouse.ServerError": 2,
    "sidecar.backup.BackupError": 2,
    "policies.rules.RuleError": 2,
    "sidecar.control.CoreRefused": 2,
    "sidecar.control.CoreUnreachable": 3,
}
"""Errors that are told in a line, and the exit status of each; any other is a bug and shows its traceback.

By name, so that nothing is imported for them.
"""


class Program(click.Group):
    """A group whose commands are in COMMANDS and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        if cmd_name not in COMMANDS:
            return None
        command = _imported(COMMANDS[cmd_name].where)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        """From the table: asking each command would import every module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.about) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of EXIT_STATUSES becomes one line and an exit status."""
        if not {"-h", "--help"}.isdisjoint(ctx.args):
            ctx.obj = Config()  # a broken configuration must not hide the help
        try:
            return super().invoke(ctx)
        except Exception as error:
            for kind in type(error).__mro__:
                status = EXIT_STATUSES.get(f"{kind.__module__}.{kind.__qualname__}")
                if status is not None:
                    click.echo(f"sidecar: {error}", err=True)
                    ctx.exit(status)
            raise


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001  # click's signature
    if asked:
        compiled = not (_imported("parsers.log:__file__")).endswith(".py")
        click.echo(f"sidecar {version('postfix-sidecar')}, {'compiled' if compiled else 'not compiled'}")
        context.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Say the version.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The configuration; without it {DEFAULT_PATH}, or the defaults where that is missing.",
)
@click.pass_context
def sidecar(context: click.Context, config_path: Path | None) -> None:
    """Dynamic sub-queues for stock Postfix.

    Exit status: 0; 1 for a finding; 2 for wrong usage or configuration; 3 when core is not reachable.
    """
    entry = COMMANDS[context.invoked_subcommand or ""]
    if context.obj is None:
        context.obj = _configuration(entry, config_path)


def _configuration(entry: Entry, path: Path | None) -> Config:
    """Raises ConfigError."""
    try:
        return load(path) if entry.configured or path else Config()
    except ConfigError as error:
        if not entry.recover:
            raise
        recovered = _imported(entry.recover)(path, error)
        assert isinstance(recovered, Config)
        return recovered


def _imported(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    sidecar(prog_name="sidecar")
