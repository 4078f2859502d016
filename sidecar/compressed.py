"""Compressed files of a log, read as if they were plain."""

import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Final

Text = io.FileIO | io.BufferedIOBase


class _Zstd(io.RawIOBase):
    """Text of a .zst file, by the program that compressed it: Python 3.11 has no decompressor."""

    def __init__(self, stored: io.FileIO) -> None:
        import subprocess  # noqa: PLC0415  # see below

        self._child = subprocess.Popen(
            ["zstd", "-dc"], stdin=stored, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase.read hands in nothing else
        assert self._child.stdout
        data = self._child.stdout.read(len(buffer))
        if not data and self._child.wait():
            raise EOFError(f"zstd ended with status {self._child.returncode}")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            assert self._child.stdout
            self._child.stdout.close()
            self._child.kill()
            self._child.wait()
        super().close()


# Most readers of a log meet none of them, and are to begin soon.


def _gzip(stored: io.FileIO) -> Text:
    import gzip  # noqa: PLC0415  # see above

    return gzip.GzipFile(fileobj=stored)


def _bzip2(stored: io.FileIO) -> Text:
    import bz2  # noqa: PLC0415  # see above

    return bz2.BZ2File(stored)


DECOMPRESSORS: Final[Mapping[str, Callable[[io.FileIO], Text]]] = {
    ".gz": _gzip,
    ".xz": lzma.LZMAFile,
    ".bz2": _bzip2,
    ".zst": lambda stored: io.BufferedReader(_Zstd(stored), 1 << 16),
}
"""By the ending of the name."""

UNREADABLE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What opening or reading a rotated file may raise."""
