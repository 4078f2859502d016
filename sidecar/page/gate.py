"""The door of the status page: lets a request through, asks for a password, or sends it away.

Knows how a password is tried without anybody else waiting; who may pass, `access` says.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar import own_log
from sidecar.config import ConfigError
from sidecar.page import passwords
from sidecar.page.access import Rules, Verdict, judge
from sidecar.page.passwords import NOBODY

REMEMBERED = 60.0
"""Seconds for which a password that fitted is not hashed again: so long somebody who was struck out still gets in."""
_REMEMBERED_MAX = 1000


class Gate:
    """Lets requests through to an application, with the user's name in the scope's state as "user"."""

    def __init__(
        self, app: ASGIApp, rules: Rules, threads: Executor, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`threads`: where passwords are tried."""
        self._app = app
        self._rules = rules
        self._threads = threads
        self._clock = clock
        self._fitted: dict[bytes, float] = {}
        self._trying = asyncio.Semaphore(1)
        """One guess at a time: some twenty a second, from all the world together."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verdict = judge(self._rules, scope)
        if verdict.credentials is not None and await self._fits(*verdict.credentials, scope=scope):
            verdict = Verdict(allowed=True, user=verdict.credentials[0])
        if verdict.allowed:
            scope["state"]["user"] = verdict.user
            await self._app(scope, receive, send)
        else:
            await _refusal(verdict)(scope, receive, send)

    async def _fits(self, name: str, password: str, *, scope: Scope) -> bool:
        # The key never leaves this process, and is of no use in another one.
        key = hashlib.blake2b(f"{name}:{password}".encode(), key=_PROCESS_KEY).digest()
        now = self._clock()
        if self._fitted.get(key, -1.0) > now:
            return True
        async with self._trying:
            call = asyncio.get_running_loop().run_in_executor(self._threads, self._tried, name, password)
            fits = await call
        if fits:
            self._fitted = {each: until for each, until in self._fitted.items() if until > now}
            if len(self._fitted) < _REMEMBERED_MAX:
                self._fitted[key] = now + REMEMBERED
        else:
            own_log.password_refused(name, scope["client"][0] if scope["client"] else "")
        return fits

    def _tried(self, name: str, password: str) -> bool:
        assert self._rules.password_file is not None
        try:
            known = passwords.read(self._rules.password_file)
        except ConfigError as error:
            own_log.page_trouble(str(error))
            return False
        return known.get(name, NOBODY).fits(password)


_PROCESS_KEY = secrets.token_bytes(32)


def _refusal(verdict: Verdict) -> Response:
    if verdict.why == "password":
        ask = {"WWW-Authenticate": 'Basic realm="Postfix sidecar", charset="UTF-8"'}
        return Response("a name and a password, please\n", HTTPStatus.UNAUTHORIZED, ask, "text/plain")
    kind, _, why = verdict.why.partition(": ")
    status = HTTPStatus.MISDIRECTED_REQUEST if kind == "host" else HTTPStatus.FORBIDDEN
    return Response(f"not from here: {why}\n", status, media_type="text/plain")
