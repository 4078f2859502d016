"""Compiles the modules that each line of the log and each question of Postfix pass through (mypyc: the same Python).

The list is in pyproject.toml, under tool.hatch.build.hooks.custom. A wheel holds both, the source and what was made of
it; Python takes the second. Where there is no C compiler the sources do alone, at two thirds of the speed.

    python hatch_build.py    # in place, for a working copy; without a compiler it says so and ends with status 0
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
GROUP = "sidecar_compiled"
"""What is made of all modules together; beside each of them lies only its name."""
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def modules() -> list[str]:
    """Paths of the sources that are compiled."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[str] = told["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]
    return found


def compiled() -> list[Path]:
    """What `compile_all` leaves, in the place of a wheel or a working copy."""
    return [ROOT / f"{GROUP}__mypyc{SUFFIX}", *((ROOT / module).with_suffix(SUFFIX) for module in modules())]


def remove_all() -> None:
    """Leave the sources alone; what is of a module that has left the list goes as well, for it could not be loaded."""
    packages = sorted({module.partition("/")[0] for module in modules()})
    for path in (compiled()[0], *(each for package in packages for each in (ROOT / package).rglob(f"*{SUFFIX}"))):
        path.unlink(missing_ok=True)


def compile_all() -> bool:
    """Compile in place; False where there is no C compiler or it cannot, and the sources do alone."""
    remove_all()
    if not shutil.which(os.environ.get("CC", "cc")):
        print("no C compiler: the sources are used as they are, at two thirds of the speed", file=sys.stderr)  # noqa: T201
        return False
    # In a process of its own: setuptools and mypy end theirs when something is wrong.
    # What they say there is told only then: mypy's errors go to standard output, as does all that setuptools does.
    done = subprocess.run(
        [sys.executable, __file__, "--compile"],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    if done.returncode:
        remove_all()
        print(done.stdout, file=sys.stderr)  # noqa: T201
        print("not compiled, see above: the sources are used as they are, at two thirds of the speed", file=sys.stderr)  # noqa: T201
    return not done.returncode


def _compile() -> None:
    from mypyc.build import mypycify  # noqa: PLC0415  # only this process needs it
    from setuptools import Distribution  # noqa: PLC0415  # as above

    extensions = mypycify(["--ignore-missing-imports", *modules()], group_name=GROUP, debug_level="0")
    build = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    build.inplace, build.parallel = True, True
    build.ensure_finalized()
    build.run()


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling names it so itself
    """Of a wheel; an installation of a working copy compiles there, when `make venv` does."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard" or not compile_all():
            return
        build_data["infer_tag"] = True
        build_data["pure_python"] = False
        shared, *others = compiled()
        build_data["force_include"][str(shared)] = shared.name  # beside the packages, so that no pattern takes it
        build_data["artifacts"] += [f"/{path.relative_to(ROOT)}" for path in others]


if __name__ == "__main__":
    if "--compile" in sys.argv:
        _compile()
    else:
        compile_all()
