"""The fleet's store without a server: what it knows, which life it leads, and whom it answers."""

from collections.abc import Sequence

from sidecar.fleet.redis_store import Read, StoreSilent, Swap


class Memory:
    """A store without a server: what it knows, its life, and whom it answers."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.life = 1
        self.at = 1.7e9
        self.ahead = 0.0
        """Seconds by which its clock is."""
        self.cut_off: set[str] = set()
        self.loses_answers_to: set[str] = set()
        """Whose next swap is done, and the answer to it lost."""


class Way:
    """One host's way to it."""

    def __init__(self, memory: Memory, host: str) -> None:
        self.memory = memory
        self.host = host

    def _reached(self) -> Memory:
        if self.host in self.memory.cut_off:
            raise StoreSilent("cut off")
        return self.memory

    async def read(self, names: Sequence[str]) -> list[Read]:
        memory = self._reached()
        return [Read(str(memory.life), memory.at + memory.ahead, memory.texts.get(name, "")) for name in names]

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]:
        answers: list[Read | None] = []
        for swap in swaps:
            (now,) = await self.read([swap.name])
            done = now.text == swap.read.text and now.server == swap.read.server
            if done:
                self.memory.texts[swap.name] = swap.text
            answers.append(None if done else now)
        if self.host in self.memory.loses_answers_to:
            self.memory.loses_answers_to.remove(self.host)
            raise StoreSilent("the answer was lost")
        return answers

    async def texts(self, names: Sequence[str]) -> tuple[float, list[str]]:
        memory = self._reached()
        return memory.at + memory.ahead, [memory.texts.get(name, "") for name in names]

    async def put(self, name: str, text: str) -> None:
        self._reached().texts[name] = text

    async def close(self) -> None:
        """There is nothing to close."""
