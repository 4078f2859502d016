"""Long lists in pages: what part to show, in which order, and the links that lead to the others.

Knows the address line; what a row is, the view knows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

PER_PAGE = 50
_PAGE_MAX = 1_000_000
_TEXT_MAX = 300

Row = TypeVar("Row")


class Column(NamedTuple):
    key: str
    """In the address line; "" for a column that orders nothing."""
    label: str
    descending: bool = False
    """Begins with the largest."""
    number: bool = False


class Heading(NamedTuple):
    label: str
    url: str
    """"" where the column orders nothing."""
    sorted: str
    """For aria-sort: ascending, descending, none."""
    number: bool


class Wish(NamedTuple):
    """What the address line asks for; anything odd in it is as if it were not there."""

    path: str
    page: int = 1
    sort: str = ""
    descending: bool = False
    others: tuple[tuple[str, str], ...] = ()
    """Filters, by name."""

    @classmethod
    def read(cls, path: str, query: Mapping[str, str], columns: Sequence[Column], filters: Sequence[str] = ()) -> Self:
        known = {column.key: column for column in columns if column.key}
        first = next(iter(known.values()), Column("", ""))
        column = known.get(query.get("sort", ""), first)
        descending = {"up": False, "down": True}.get(query.get("order", ""), column.descending)
        others = tuple((name, query[name][:_TEXT_MAX].strip()) for name in filters if query.get(name, "").strip())
        number = query.get("page", "1")
        page = int(number) if number.isascii() and number.isdecimal() and len(number) < 8 else 1
        return cls(path, min(max(page, 1), _PAGE_MAX), column.key, descending, others)

    def filter(self, name: str) -> str:
        return dict(self.others).get(name, "")

    def url(self, **changes: Any) -> str:
        """The address line with some of it changed."""
        wish = self._replace(**changes)
        order = {"sort": wish.sort, "order": "down" if wish.descending else "up"} if wish.sort else {}
        page = {"page": str(wish.page)} if wish.page > 1 else {}
        words = urlencode({**dict(wish.others), **order, **page})
        return f"{wish.path}?{words}" if words else wish.path

    def headings(self, columns: Sequence[Column]) -> list[Heading]:
        return [self._heading(column) for column in columns]

    def _heading(self, column: Column) -> Heading:
        if not column.key:
            return Heading(column.label, "", "none", column.number)
        here = column.key == self.sort
        descending = not self.descending if here else column.descending
        state = ("descending" if self.descending else "ascending") if here else "none"
        return Heading(column.label, self.url(sort=column.key, descending=descending, page=1), state, column.number)


class Slice(NamedTuple, Generic[Row]):
    """One page of a list."""

    rows: Sequence[Row]
    total: int
    first: int
    """Number of its first row, from 1; 0 where there is none."""
    previous: str
    """Address of the page before; "" where there is none."""
    next: str

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1 if self.rows else 0


def sliced(found: Sequence[Row], wish: Wish, *, per_page: int = PER_PAGE) -> Slice[Row]:
    """Cut out the page that is wished for; the last one where there are not so many."""
    pages = max(1, -(-len(found) // per_page))
    page = min(wish.page, pages)
    begin = (page - 1) * per_page
    rows = found[begin : begin + per_page]
    return Slice(
        rows,
        len(found),
        begin + 1 if rows else 0,
        wish.url(page=page - 1) if page > 1 else "",
        wish.url(page=page + 1) if page < pages else "",
    )


def ordered(found: Sequence[Row], wish: Wish, keys: Mapping[str, Callable[[Row], Any]]) -> list[Row]:
    """Sort by the column that is wished for; equal rows keep their order."""
    key = keys.get(wish.sort)
    return sorted(found, key=key, reverse=wish.descending) if key else list(found)
