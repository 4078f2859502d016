"""What the failsafe goes by when the configuration is broken."""

import json
import os
from pathlib import Path

import pytest

from sidecar import in_force
from sidecar.config import Config, LogConfig, PostfixConfig, StoreConfig, SubqueuesConfig
from sidecar.toml_table import ConfigError

ERROR = ConfigError("sidecar.toml: mdoe: unknown key; did you mean mode?")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("run", "store"):
        (tmp_path / name).mkdir()
    return Config(
        runtime_directory=str(tmp_path / "run"),
        log=LogConfig(source="/var/log/other.log", syslog_names=("relay",)),
        store=StoreConfig(path=str(tmp_path / "store")),
        postfix=PostfixConfig(config_directory="/etc/postfix-out"),
        subqueues=SubqueuesConfig(failsafe_after_minutes=3.0),
    )


def broken(config: Config, text: str = 'mdoe = "act"\nstore.path = "{store}"\n') -> Path:
    path = Path(config.store.path).parent / "sidecar.toml"
    path.write_text(text.format(store=config.store.path, run=config.runtime_directory))
    return path


@pytest.mark.parametrize(
    "text",
    [
        'mdoe = "act"\nstore.path = "{store}"\n',
        "[store]\npath = '{store}'\n[store\n",
        'runtime_directory = "{run}" ???',
        'a = "/nowhere"\n# "{run}"\n\0\0',
    ],
)
def test_what_was_in_force_is_found(config: Config, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    in_force.write(config)
    found = in_force.recover(broken(config, text), ERROR)
    assert found == config
    said = capsys.readouterr().err
    assert "did you mean mode?" in said
    assert "GOING BY" in said
    assert in_force.NAME in said


def test_either_directory_is_enough(config: Config) -> None:
    Path(config.runtime_directory).rmdir()
    in_force.write(config)
    assert in_force.recover(broken(config), ERROR) == config
    Path(config.store.path, in_force.NAME).unlink()
    Path(config.store.path).rmdir()
    with pytest.raises(FileNotFoundError):
        in_force.write(config)


def test_without_it_the_defaults_hold(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    found = in_force.recover(broken(config), ERROR)
    assert found.postfix.config_directory == "/etc/postfix"
    assert "GOING BY THE DEFAULTS" in capsys.readouterr().err
    assert in_force.recover(Path("/nowhere/sidecar.toml"), ERROR) == found


def theirs(path: Path) -> None:
    os.chown(path, 65534, 65534)


def writable(path: Path) -> None:
    path.chmod(0o666)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def no_json(path: Path) -> None:
    path.write_text("{")


def no_table(path: Path) -> None:
    path.write_text("[]")


def unknown_key(path: Path) -> None:
    path.write_text(json.dumps({"postfix": {"config_dir": "/etc/postfix-theirs"}}))


@pytest.mark.parametrize(
    "spoil", [pytest.param(theirs, marks=pytest.mark.postfix), writable, linked, a_pipe, no_json, no_table, unknown_key]
)
def test_what_another_may_have_written_is_not_believed(config: Config, spoil: object) -> None:
    """Root is going to run commands of the Postfix that it names."""
    in_force.write(config)
    for directory in (config.store.path, config.runtime_directory):
        assert callable(spoil)
        spoil(Path(directory, in_force.NAME))
    assert in_force.recover(broken(config), ERROR).postfix.config_directory == "/etc/postfix"


def test_an_earlier_one_is_replaced_whole(config: Config) -> None:
    place = Path(config.store.path)
    (place / in_force.NAME).symlink_to("victim")
    (place / "victim").write_text("kept")
    in_force.write(config)
    assert (place / "victim").read_text() == "kept"
    assert sorted(path.name for path in place.iterdir()) == [in_force.NAME, "victim"]
