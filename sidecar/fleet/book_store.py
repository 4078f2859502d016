"""The books as they lie in Redis: of the text, a host changes its own share alone, or all but the others' shares.

So hundreds of hosts that hold mail of one key are not in each other's way, nor in that of who leads, and need not be told of
each other's shares. The text is as older versions read and write it, who swap all of it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from policies.fleet.book import Book, Share, Wish
from policies.fleet.terms import LEASE
from sidecar.fleet.redis_store import KEPT, STAND, Read, RedisStore, read_of

# A text is `...,"shares":{"HOST":[RATE,NEED,EXPIRES,...],...},"token":N}`; a quote within a name is escaped, so `{"` and `,"` begin
# names only. Where shares cannot be told from the rest by that, nothing is done. A host's own share is changed only where it is
# as that host knows it: what is late must not undo what came after it. What it writes over it is as long as that, if it can be.
# What all shares come to stands behind them (`"sums":"WHEN RATE NEED SHARES"`), for a while: shares that run out are in it a little
# longer, so less is lent, not more. Whoever swaps the text leaves that out, and so has it added up anew.
# A lead of more than AHEAD seconds was written by a clock that was set back since: hosts then read all of the book, and begin it anew.
_SHARE = (
    STAND
    + """
local life, known, name, mine, need, pool, counts, lease, kept, whole, settled, head, tail = unpack(ARGV)
local now = stand()
local text, at = now[4], tonumber(now[2]) + tonumber(now[3]) / 1e6
local WIDTH, SUMMED_FOR, AHEAD, MARK, ENDS = 72, 0.5, 600, '},"sums":"', ',"token":'
local _, from = string.find(text, '"shares":{', 1, true)
if now[1] ~= life or not from then return now end
local upto, slot = string.find(text, MARK, from, true)
local rest = slot and slot + WIDTH + 2
if not upto then
  upto = string.find(text, '}' .. ENDS, from, true)
  rest = upto and upto + 1
end
if not upto or string.sub(text, rest, rest + #ENDS - 1) ~= ENDS then return now end
local before, after = string.sub(text, 1, from - 1), '}' .. string.sub(text, rest)
if head then
  if redis.sha1hex(before .. after) ~= known then return now end
else
  local ends = tonumber(string.match(before, '"lead":%["[^"]*",%d+,([^%]]*)%]') or '')
  if not ends or ends <= at or ends > at + AHEAD or at < tonumber(settled) then return now end
  local outline = string.gsub(before, '("lead":%["[^"]*",%d+),[^%]]*', '%1', 1) .. after
  if redis.sha1hex(outline) ~= known then return {now[1], now[2], now[3], before .. '{' .. after, ''} end
end

local rates, needs, shares, own, was, others, summed_at
local function add_up()
  local entries, count, place = string.sub(text, from, upto - 1), 0, 0
  rates, needs, shares, own, was, others, summed_at = 0, 0, 0, nil, nil, {}, at
  local each = '[{,]("([^"]*)":%[([^,%]]*),([^,%]]*),([^,%]]*)[^%]]*%])'
  for entry, host, rate, wants, ends in string.gmatch(entries, each) do
    rate, wants, ends, count = tonumber(rate), tonumber(wants), tonumber(ends), count + 1
    if not (rate and wants and ends) or rate < 0 or wants < 0 then return false end
    if host == name then
      own, was = entry, ends
    elseif ends > at then
      rates, needs, shares = rates + rate, needs + wants, shares + 1
      others[shares] = entry
    end
  end
  repeat
    place = string.find(entries, '":[', place + 1, true)
    count = count - (place and 1 or 0)
  until not place
  return count == 0
end
local function recall()
  local sums = slot and not head and string.sub(text, slot + 1, slot + WIDTH) or ''
  summed_at, rates, needs, shares = string.match(sums, '^(%S+) +(%S+) +(%S+) +(%S+) *$')
  summed_at, rates, needs, shares = tonumber(summed_at), tonumber(rates), tonumber(needs), tonumber(shares)
  if not (summed_at and rates and needs and shares) or at < summed_at or at - summed_at >= SUMMED_FOR then return false end
  local place = string.find(text, '{"' .. name .. '":[', from, true) or string.find(text, ',"' .. name .. '":[', from, true)
  local ends = place and string.find(text, ']', place + #name + 5, true)
  if not ends then return false end
  own = string.sub(text, place + 1, ends)
  local rate, wants, expires = string.match(own, '^([^,]*),([^,]*),([^,%]]*)', #name + 5)
  rate, wants, was = tonumber(rate), tonumber(wants), tonumber(expires)
  if not (rate and wants and was and was > summed_at) then return false end
  rates, needs, shares = rates - rate, needs - wants, shares - 1
  return true
end
local said, lent
local function lend()
  said, lent = own, ''
  if pool == '' then return end
  said = nil
  if tonumber(need) > 0 then
    local fair = tonumber(pool) * need / (need + needs)
    lent = string.format('%.17g', math.max(0, math.min(fair, pool - rates)))
    said = '"' .. name .. '":[' .. lent .. string.format(',%d,%.17g,', need, at + lease) .. counts
    local long = own and #own > #said and #own or 32 * math.ceil((#said + 1) / 32)
    said = said .. string.rep(' ', long - #said - 1) .. ']'
  end
end
if pool ~= '' and recall() then lend() else shares = nil end
if not shares or not said or #own ~= #said then
  if not add_up() then return now end
  lend()
end
if was ~= tonumber(mine) then return now end

if pool ~= '' or head then
  local all = {rates, needs, shares}
  if said and lent ~= '' then
    all = {rates + lent, needs + need, shares + 1}
  end
  local sums = string.format('%-24.17g%-24.17g%-16.17g%-8d', summed_at, all[1], all[2], all[3])
  local place = not head and slot and own and said and #own == #said and string.find(text, own, from, true)
  if place then
    local done = type(redis.pcall('SETRANGE', KEYS[1], place - 1, said)) == 'number'
    if whole == '1' or not done then
      text = string.sub(text, 1, place - 1) .. said .. string.sub(text, place + #own, slot) .. sums .. string.sub(text, slot + WIDTH + 1)
    end
    if done then
      redis.call('SETRANGE', KEYS[1], slot, sums)
      redis.pcall('EXPIRE', KEYS[1], kept)
    else
      redis.call('SET', KEYS[1], text, 'EX', kept)
    end
  elseif head or own or said then
    others[#others + 1] = said
    local mark = (said == nil or lent ~= '') and MARK .. sums .. '"' or '}'
    text = (head or before) .. '{' .. table.concat(others, ',') .. mark .. string.sub(tail or after, 2)
    redis.call('SET', KEYS[1], text, 'EX', kept)
  end
end
if said then shares = shares + 1 end
return {now[1], now[2], now[3], whole == '1' and text or '', lent, string.format('%.17g', at + lease), tostring(needs), shares}
"""
)
_SHARES, _TOKEN = '"shares":', '},"token":'
_END = re.compile(r'\},(?:"sums":"[^"]*",)?"token":')
_LEAD = re.compile(rb'("lead":\["[^"]*",\d+),[^\]]*')


class Around(NamedTuple):
    """What stands before and after the shares in the text of a book."""

    before: str
    after: str

    @classmethod
    def shares_of(cls, text: str) -> "Around | None":
        """None where they cannot be found."""
        begin = text.find(_SHARES + "{")
        end = _END.search(text, begin) if begin >= 0 else None
        return cls(text[: begin + len(_SHARES)], _TOKEN + text[end.end() :]) if end is not None else None

    def outline(self, *, led: bool) -> str:
        """Name what it says; where somebody is `led` by it, but for when its lead runs out."""
        written = "".join(self).encode(errors="surrogateescape")
        return hashlib.sha1(_LEAD.sub(rb"\1", written, count=1) if led else written, usedforsecurity=False).hexdigest()


class Change(NamedTuple):
    """What a host would have of a book: another share, as `policies.fleet.book.lend` makes it of `pooled`."""

    name: str
    """Of the text."""
    server: str
    settled: float
    known: Around
    """As the host knows it ..."""
    new: Around | None
    """... and what is to stand there instead; None: that, while somebody leads."""
    mine: float | None
    """When the share runs out that the host knows of as its own; None: it has none."""
    wish: Wish
    pooled: float | None
    whole: bool = False
    """Whether to give the text in any case."""

    def arguments(self) -> tuple[str | float, ...]:
        wish = self.wish
        values = (
            self.server,
            self.known.outline(led=self.new is None),
            json.dumps(wish.host)[1:-1],
            "" if self.mine is None else repr(self.mine),
            wish.need,
            "" if self.pooled is None else repr(self.pooled),
            f"{wish.accepted},{wish.before},{wish.during!r}",
            LEASE,
            KEPT,
            int(self.whole),
            repr(self.settled),
        )
        return (*values, *self.new) if self.new is not None else values


class Changed(NamedTuple):
    """It was done."""

    at: float
    """By the server's clock."""
    text: str
    """Of the book then; "" where it was not asked for."""
    share: Share | None
    """What the host has now; None: none, or what it had."""
    needs: int
    """Of the others, messages."""
    holders: int
    """Shares that there were."""


class Outer(NamedTuple):
    """It was not, for what stands around the shares is another, and that is `read`, without any."""

    read: Read


class BookStore:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def change(self, changes: Sequence[Change]) -> list[Changed | Outer | Read]:
        """Do each, or give what stands there. Raises StoreSilent."""
        calls = [(_SHARE, each.name, tuple(map(str, each.arguments()))) for each in changes]
        answers = await self._store.run(calls)
        return [_answer(found, each.wish) for found, each in zip(answers, changes, strict=True)]


def _answer(found: Sequence[str], wish: Wish) -> Changed | Outer | Read:
    stand, more = read_of(found[:4]), found[4:]
    if not more:
        return stand
    if len(more) == 1:
        return Outer(stand)
    lent, expires, needs, holders = more
    share = Share(float(lent), wish.need, float(expires), wish.accepted, wish.before, wish.during) if lent else None
    return Changed(stand.at, stand.text, share, int(float(needs)), int(holders))


def mine(book: Book, host: str) -> float | None:
    """Tell when a host's share runs out, as a text says that was read; None: it has none there."""
    share = book.lent().get(host)
    return share.expires if share is not None else None
