"""docs/ansible/: each variable, file, unit, handler and command that it names is there, and what it writes is read by the program."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sidecar.cli import COMMANDS
from sidecar.config import Config, Mode, load

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "ansible"
ROLE = DEPLOY / "roles" / "sidecar"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
TASKS: list[dict[str, Any]] = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text())
HANDLERS: list[dict[str, Any]] = yaml.safe_load((ROLE / "handlers" / "main.yml").read_text())
INVENTORY: dict[str, Any] = yaml.safe_load((DEPLOY / "inventory.example.yml").read_text())["mail"]
PLAY: dict[str, Any] = yaml.safe_load((DEPLOY / "site.yml").read_text())[0]
REGISTERED = {task["register"] for task in TASKS if "register" in task}
TEMPLATES = Environment(
    loader=FileSystemLoader(ROLE / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    autoescape=False,  # noqa: S701  # no HTML
)
FLEET = {
    "sidecar_mode": "act",
    "sidecar_redis": "rediss://sidecar@redis.example.com:6379/0",
    "sidecar_redis_password": "secret",
    "sidecar_fleet_host": "mx1.example.com",
    "sidecar_reachable_addresses": ["192.0.2.10", "192.0.2.53"],
    "sidecar_settings": "[subqueues]\nhold_max_hours = 12\n",
}


def test_every_variable_has_a_default_and_every_default_is_used() -> None:
    used = {name for path in FILES for name in re.findall(r"\bsidecar_[a-z_]+", path.read_text())}
    assert used == DEFAULTS.keys() | REGISTERED
    said = {*INVENTORY["vars"], *(name for host in INVENTORY["hosts"].values() for name in host or ())}
    assert said <= DEFAULTS.keys()
    once = {name for name in DEFAULTS if sum(path.read_text().count(name) for path in FILES) == 1}
    assert not once


def test_the_files_that_are_copied_are_there() -> None:
    copied = [
        f"{task['ansible.builtin.copy']['src']}" for task in TASKS if "src" in task.get("ansible.builtin.copy", {})
    ]
    items = {item if isinstance(item, str) else item["src"] for task in named("User", "Units") for item in task["loop"]}
    assert {each for each in copied if "systemd/" in each}
    assert {each for each in items if not (ROOT / "systemd" / each).is_file()} == set()
    templates = {task["ansible.builtin.template"]["src"] for task in TASKS if "ansible.builtin.template" in task}
    assert templates == {path.name for path in (ROLE / "templates").iterdir()}


def named(*begin: str) -> list[dict[str, Any]]:
    return [task for task in TASKS if task["name"].startswith(begin)]


def test_units_that_are_started_are_copied_and_all_that_belong_together_are() -> None:
    (units,), (started,) = named("Units"), named("Started")
    assert set(started["loop"]) <= set(units["loop"])
    restarted = {handler["ansible.builtin.systemd_service"].get("name") for handler in HANDLERS} - {None}
    assert restarted <= set(units["loop"])
    there = {
        path.name for path in (ROOT / "systemd").glob("sidecar*.*") if path.suffix in {".service", ".socket", ".timer"}
    }
    assert there - set(units["loop"]) == {
        "sidecar-policy@.socket",
        "sidecar-core@.service",
    }  # several instances; a log host


def test_handlers_that_are_notified_are_there() -> None:
    notified = {name for task in TASKS for name in task.get("notify", ())}
    assert notified == {handler["name"] for handler in HANDLERS}


def test_commands_that_are_run_are_there() -> None:
    text = (ROLE / "tasks" / "main.yml").read_text()
    run = re.findall(r"(?:command: |/usr/bin/)sidecar (?:--config %s )?(\w+)", text)
    assert run == ["rules", "postfix", "status"]
    assert set(run) <= COMMANDS.keys()


def test_one_host_after_another() -> None:
    assert (PLAY["serial"], PLAY["max_fail_percentage"], PLAY["roles"]) == (1, 0, ["sidecar"])
    order = [task["name"] for task in TASKS]
    assert order.index("Restart what has changed") < order.index("Core answers, and the next host may go on")


@pytest.mark.parametrize(("given", "mode"), [({}, Mode.OBSERVE), (FLEET, Mode.ACT)])
def test_what_is_written_is_read(given: dict[str, Any], mode: Mode, tmp_path: Path) -> None:
    (tmp_path / "sidecar.toml").write_text(rendered("sidecar.toml.j2", given))
    config = load(tmp_path / "sidecar.toml")
    assert config.mode is mode
    if not given:
        assert config == Config()
        return
    assert config.store.redis == FLEET["sidecar_redis"]
    assert (config.fleet.host, config.fleet.password_file) == ("mx1.example.com", "/etc/sidecar/redis.password")
    assert config.subqueues.hold_max_hours == 12


def test_the_addresses_that_core_may_reach() -> None:
    lines = [line for line in rendered("reach.conf.j2", FLEET).splitlines() if not line.startswith("#")]
    assert lines == ["[Service]", "IPAddressAllow=192.0.2.10", "IPAddressAllow=192.0.2.53"]


def rendered(template: str, given: dict[str, Any]) -> str:
    values = {**DEFAULTS, "sidecar_fleet_host": "mx1", **given}
    return TEMPLATES.get_template(template).render(values)
