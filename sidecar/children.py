"""Child processes that are to run always: started, started again when they die, stopped in order.

Knows processes, signals and how sockets are handed on; nothing of what the children do.
"""

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from sidecar import own_log

STOP_WITHIN = 5.0
"""Seconds from SIGTERM until everything has ended; who has not by then is killed."""
_KEPT_FOR_THE_NEXT = 1.0  # of these, for each child that is still to be stopped
LIVED = 60.0
"""Seconds after which a child's next death counts as its first again."""
RESTART_FIRST, RESTART_MAX = 0.2, 5.0

_PR_SET_PDEATHSIG = 1  # prctl(2)
_FIRST_HANDLE = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_AWAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_EXEC_FAILED = 127

Mask = set[int | signal.Signals]


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    command: tuple[str, ...]
    """Program (a path) and arguments."""
    sockets: tuple[int, ...] = ()
    """Listening sockets it inherits, in systemd's manner, all named "policy"."""
    reads_standard_input: bool = False
    reloads: bool = False
    """SIGHUP is passed on to it."""


@dataclass(slots=True)
class _State:
    """What became of a child so far; times are monotonic."""

    child: Child
    pid: int | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    """When it is to be started, while `pid` is None."""


def pause(deaths: int) -> float:
    """Seconds to wait after so many deaths in a row: none after the first, then longer and longer."""
    return 0.0 if deaths <= 1 else min(RESTART_FIRST * 2 ** min(deaths - 2, 10), RESTART_MAX)


def supervise(children: Sequence[Child]) -> None:
    """Start the children, start again who dies, and stop all, last first, on SIGTERM or SIGINT.

    SIGHUP goes to those that can reload; where we run on a terminal it means that this is gone, and stops all.
    A child dies with us, too, if we are killed. Must be called in the only thread of a process.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents leave it, it would lose exit statuses
    stopping = {signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if os.isatty(0) else ())}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    states = [_State(child) for child in children]
    try:
        _keep_running(states, mask, stopping)
    finally:
        _stop(states)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _keep_running(states: Sequence[_State], mask: Mask, stopping: Mask) -> None:
    while True:
        for state in states:
            if state.pid is None and time.monotonic() >= state.due:
                state.pid, state.started = _start(state.child, mask), time.monotonic()
                own_log.started(state.child.name, state.pid)
        waiting = [state.due - time.monotonic() for state in states if state.pid is None]
        came = _signal_within(min(waiting, default=3600.0))
        if came in stopping:
            own_log.stopping(signal.Signals(came).name)
            return
        if came == signal.SIGHUP:
            _pass_on(states)
        for state in states:
            _bury(state)


def _signal_within(seconds: float) -> int | None:
    came = signal.sigtimedwait(_AWAITED, max(seconds, 0.0))
    return came.si_signo if came else None


def _pass_on(states: Sequence[_State]) -> None:
    for state in states:
        if state.child.reloads and state.pid is not None:
            os.kill(state.pid, signal.SIGHUP)


def _bury(state: _State) -> None:
    """Take note if a child has died, and say when it is started again."""
    how = _ended(state)
    if how is None or state.pid is None:
        return
    lived = time.monotonic() - state.started
    state.deaths = 1 if lived >= LIVED else state.deaths + 1
    state.due = time.monotonic() + pause(state.deaths)
    own_log.ended(state.child.name, state.pid, how=how, again_in=pause(state.deaths))
    state.pid = None


def _ended(state: _State) -> str | None:
    """How a child ended; None while it lives."""
    if state.pid is None:
        return None
    pid, status = os.waitpid(state.pid, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _stop(states: Sequence[_State]) -> None:
    deadline = time.monotonic() + STOP_WITHIN
    living = [state for state in states if state.pid is not None]
    while living:
        state = living.pop()
        assert state.pid is not None
        os.kill(state.pid, signal.SIGTERM)
        began = time.monotonic()
        how = _ended_by(state, deadline - _KEPT_FOR_THE_NEXT * len(living))
        if how is None:
            os.kill(state.pid, signal.SIGKILL)
            own_log.unstoppable(state.child.name, state.pid, waited=time.monotonic() - began)
            os.waitpid(state.pid, 0)
        else:
            own_log.stopped(state.child.name, state.pid, how=how)
        state.pid = None


def _ended_by(state: _State, deadline: float) -> str | None:
    while (how := _ended(state)) is None and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
    return how


def _start(child: Child, mask: Mask) -> int:
    """Fork and execute; gives the process id.

    By hand and not through subprocess: LISTEN_PID must hold the child's own id, and its sockets the handles
    from 3 on, which may be in use here.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(child, mask, supervisor, prctl)
    return pid


def _become(child: Child, mask: Mask, supervisor: int, prctl: "ctypes._FuncPointer") -> Never:
    """In the new process: turn into the child."""
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before we could ask to die with it
            os._exit(_EXEC_FAILED)
        if not child.reads_standard_input:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _place(child.sockets)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(child.command[0], child.command, _environment(child))  # noqa: S606  # no shell is the point
    except BaseException as error:  # noqa: BLE001  # nothing may get back into the supervisor's code
        own_log.not_startable(child.name, error)
    os._exit(_EXEC_FAILED)


def _place(sockets: Sequence[int]) -> None:
    """Give the sockets the handles from 3 on, moving them out of each other's way first."""
    beyond = _FIRST_HANDLE + len(sockets)
    spare = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, beyond) for number in sockets]
    for i, number in enumerate(spare):
        os.dup2(number, _FIRST_HANDLE + i, inheritable=True)


def _environment(child: Child) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    if child.sockets:
        environment["LISTEN_PID"] = str(os.getpid())
        environment["LISTEN_FDS"] = str(len(child.sockets))
        environment["LISTEN_FDNAMES"] = ":".join(["policy"] * len(child.sockets))
    return environment
