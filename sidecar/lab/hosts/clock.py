"""Hosts whose clock is wrong: all that is started for them reads the time of day so much later or earlier.

libfaketime(1) would do, but for waits: with it Python's sleeps fail, or its locks wait for as long as the clock is ahead.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sidecar.lab.namespace import NamespaceError

_AHEAD = "SIDECAR_LAB_AHEAD"
_IMPORTED = "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME"
"""What Postfix takes over by itself (import_environment)."""
_SOURCE = f"""\
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void)
{{
    const char *seconds = getenv("{_AHEAD}");
    return seconds ? atol(seconds) : 0;
}}

int clock_gettime(clockid_t clock, struct timespec *now)
{{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return failed;
}}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}}

time_t time(time_t *also)
{{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (also)
        *also = precise.tv_sec;
    return precise.tv_sec;
}}
"""
"""Only the time of day is another: the clock that nobody sets is right, as on a host that was set wrong."""


def library(directory: Path) -> Path:
    """Compile what programs are to load before all else. Raises NamespaceError."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NamespaceError("no C compiler, for clocks that are wrong; apt-get install gcc libc6-dev")
    source, made = directory / "clock.c", directory / "clock.so"
    source.write_text(_SOURCE)
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O", "-o", str(made), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NamespaceError(f"{compiler} does not compile clock.c: {done.stderr[-500:]}")
    return made


def in_another_time(ahead: float, library: Path) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Give the command that starts another with a clock whole seconds `ahead`, and what main.cf needs for it."""
    variables = {"LD_PRELOAD": str(library), _AHEAD: f"{ahead:.0f}"}
    command = ("env", *(f"{name}={value}" for name, value in variables.items()))
    return command, {"import_environment": f"{_IMPORTED} {' '.join(variables)}"}
