"""One open file of the log: how far it was read, and whether it is still the text that was read.

Which file comes next is not its business.
"""

import io
import os
from typing import NamedTuple

from sidecar.log_batch import BATCH_LINES, READ_SIZE
from sidecar.rotation import HEAD, LogFile, Place, digest, open_file


class Cut(NamedTuple):
    """Some lines without their ends, and the offset after them."""

    lines: list[bytes]
    offset: int


class Reading:
    """Use `read` and `cut` in turn; `place` stands after the last line that was cut."""

    def __init__(self, file: LogFile, offset: int) -> None:
        """Begin at an offset where a line begins, at the file's end where it is shorter (`shrunk`).

        Raises OSError; FileNotFoundError also when another file bears the name by now.
        """
        self.path = file.path
        self.compressed = file.compressed
        self.identity = file.identity
        self.offset = offset
        self.pending = b""
        """What was read after the offset: the beginning of a line."""
        self.shrunk = False
        self._skip = offset if self.compressed else 0
        self._head = b""
        self._stored, self._text = open_file(file)
        try:
            self.rewritten()
            if not self.compressed:
                self.shrunk = offset > self.size
                self.restart(min(offset, self.size))
        except OSError:
            self.close()
            raise

    @property
    def place(self) -> Place:
        return Place(*self.identity, len(self._head), digest(self._head), self.offset, self.mtime_ns)

    @property
    def skipping(self) -> bool:
        """A compressed file can only be read from its beginning; the offset is not reached yet."""
        return self._skip > 0

    def rewritten(self) -> bool:
        """Truncated, perhaps grown again: the text is not the one that was read.

        Raises OSError.
        """
        status = os.fstat(self._stored.fileno())
        self.size, self.mtime_ns = status.st_size, status.st_mtime_ns
        shorter = self.size < self.offset + len(self.pending)
        return not self.compressed and (shorter or not self.begins_the_same())

    def begins_the_same(self) -> bool:
        return os.pread(self._stored.fileno(), len(self._head), 0) == self._head

    def restart(self, offset: int) -> None:
        """Go on at another offset of a file that is not compressed."""
        self._text.seek(offset)
        self.offset, self.pending = offset, b""
        self._head = os.pread(self._stored.fileno(), HEAD, 0)

    def read(self) -> bytes:
        """At most READ_SIZE bytes, b"" at the present end and while skipping.

        Raises one of compressed.UNREADABLE.
        """
        data = self._text.read(min(self._skip, READ_SIZE) if self._skip else READ_SIZE)
        if len(self._head) < HEAD:
            self._head = (self._head + data)[:HEAD] if self.compressed else os.pread(self._stored.fileno(), HEAD, 0)
        if not self._skip:
            return data
        if not data:
            raise EOFError("it ends before the place that was read")
        self._skip -= len(data)
        return b"" if self._skip else self.read()

    def cut(self, data: bytes) -> list[Cut]:
        """Cut what was read into lines; a half-written one is kept until its end comes, or it is too long."""
        data = self.pending + data
        end = data.rfind(b"\n") + 1
        self.pending = data[end:]
        lines = data[:end].split(b"\n")[:-1]
        returns = b"\r" in data
        cuts = []
        for start in range(0, len(lines), BATCH_LINES):
            part = lines[start : start + BATCH_LINES]
            self.offset += sum(map(len, part)) + len(part)
            cuts.append(Cut([line.removesuffix(b"\r") for line in part] if returns else part, self.offset))
        if len(self.pending) > READ_SIZE:
            cuts.extend(self.rest())
        return cuts

    def rest(self) -> list[Cut]:
        """The half-written line as it stands: its end is not going to come."""
        line, self.pending = self.pending, b""
        self.offset += len(line)
        # Only NULs: a hole, left by a writer that went on at its old offset after a truncation.
        return [Cut([line] if line.strip(b"\0") else [], self.offset)] if line else []

    def give_up(self) -> None:
        """Read no further: what follows is damaged."""
        self._text.close()
        self._text = io.BytesIO()
        self._skip = 0

    def close(self) -> None:
        self._text.close()
        self._stored.close()
