"""Parts of logs, each read by a process of its own, so many at once; what comes of them, in the parts' order."""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from sidecar.bulk import ParseError, Part, seldom_collected

R = TypeVar("R")


def side_by_side(work: Callable[[Part], R], some: Sequence[Part], most: int) -> Iterator[R]:
    """One process a part. Forked, so that it begins at once, and `work` may be any function."""
    waiting = list(enumerate(some))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    done: dict[int, R] = {}
    following = 0
    try:
        while following < len(some):
            while waiting and len(running) < most:
                number, part = waiting.pop(0)
                connection, process = _started(work, part)
                running[connection] = number, process
            for ready in wait(list(running)):
                connection = cast("Connection", ready)
                number, process = running.pop(connection)
                done[number] = _received(connection, process, some[number])
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()


def _started(work: Callable[[Part], R], part: Part) -> tuple[Connection, BaseProcess]:
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_child, args=(work, part, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen
    return ours, process


def _child(work: Callable[[Part], R], part: Part, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    try:
        with seldom_collected():
            result = work(part)
    except ParseError as error:
        connection.send((str(error), None))
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent shall say it
        connection.send((f"{part.path}: {type(error).__name__}: {error}", None))
    else:
        connection.send(("", result))


def _received(connection: Connection, process: BaseProcess, part: Part) -> Any:
    try:
        message, result = connection.recv()
    except EOFError:
        process.join()
        how = (
            f"by signal {-process.exitcode}" if process.exitcode and process.exitcode < 0 else "before its result came"
        )
        raise ParseError(
            f"{part.path}: the process that read it was ended {how}; if memory was short, try fewer processes"
        ) from None
    finally:
        connection.close()
    process.join()
    if message:
        raise ParseError(message)
    return result
