"""The roll as it lies in Redis: one text, of which a host that renews its entry changes that alone, and is told what all come to.

So many hosts can do that at once, and what each is told does not grow with their number. The text is as older versions
read and write it, who swap all of it.
"""

import hashlib
import json
import re
from typing import Any, NamedTuple

from policies.fleet.roll import Asking, Roll, Standing, standing_of
from policies.fleet.terms import NEVER, REDUCED, SILENT_AFTER
from sidecar.fleet.redis_store import KEPT, STAND, Read, RedisStore, Swap, read_of

ROLL = "roll"

# An entry is `"HOST":[MET,AGREED,ALONE]`; a quote within a name is escaped, so `{"` and `,"` begin names only. Where entries
# cannot be told from the rest by that, nothing is done. The outline of a roll is all of it but the times. What a host writes
# over its own entry is as long as that, where it wrote that too. What they came to stands at the end for a moment (`"tally":"OUTLINE
# WHEN HERE MEMBERS ALONE PARTS"`), so that not each of hundreds has all entries counted; no part is ever given by that. Whoever writes
# the whole roll leaves it out.
_OUTLINE = """
local MARK, WIDTH, TALLIED_FOR = ',"tally":"', 136, 0.25
local function untallied(text)
  local begins = #text - WIDTH - #MARK - 1
  if begins < 1 or string.sub(text, begins, begins + #MARK - 1) ~= MARK then return text end
  return string.sub(text, 1, begins - 1) .. '}', string.sub(text, begins + #MARK, -3)
end
local function outline(text)
  return redis.sha1hex((string.gsub(text, '%[[^,%]]*,[^,%]]*,', '[')))
end
"""
_ENTER = (
    STAND
    + _OUTLINE
    + """
local life, known, name, kept, silent_after, reduced = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local now = stand()
local at = tonumber(now[2]) + tonumber(now[3]) / 1e6
local text, tally = untallied(now[4])
if now[1] ~= life or not string.find(text, '"server":"' .. life .. '"', 1, true) then return now end
local begins = string.find(text, '{"' .. name .. '":[', 1, true) or string.find(text, ',"' .. name .. '":[', 1, true)
local from, upto
if begins then
  from, upto = string.find(text, '^[^,%]]*,[^,%]]*,[^,%]]*', begins + #name + 5)
end
local function renewed(was)
  local met, agreed = ARGV[8], ARGV[9]
  if ARGV[11] == '1' then
    local function later(said, is)
      said = tonumber(said) or 0
      return said > tonumber(is) and said < at + silent_after
    end
    met = later(was[1], met) and was[1] or met
    agreed = later(was[2], agreed) and was[2] or agreed
  end
  return met, agreed
end
local function part_of(members, others)
  return math.max(0, math.min(reduced / members, 1 - others), tonumber(ARGV[10]))
end
local function write(before, entry, tally)
  local fits = before and upto - from + 1 == #entry
  local done = fits and type(redis.pcall('SETRANGE', KEYS[1], from - 1, entry)) == 'number'
  if not done or ARGV[7] == '1' or before ~= tally then
    text = string.sub(text, 1, from - 1) .. entry .. string.sub(text, upto + 1, -2) .. MARK .. tally .. '"}'
  end
  if done then
    if before ~= tally then redis.call('SETRANGE', KEYS[1], #text - WIDTH - 2, tally) end
    redis.pcall('EXPIRE', KEYS[1], kept)
  else
    redis.call('SET', KEYS[1], text, 'EX', kept)
  end
end

local seen, tallied, near, all, cut_off, parts = string.match(tally or '', '^(%x+) (%S+) +(%S+) +(%S+) +(%S+) +(%S+) *$')
tallied, near, all, cut_off, parts = tonumber(tallied), tonumber(near), tonumber(all), tonumber(cut_off), tonumber(parts)
if tallied and near and all and cut_off and parts and at >= tallied and at - tallied < TALLIED_FOR and from then
  local was = {string.match(text, '([^,%]]*),([^,%]]*),([^,%]]*)', from)}
  local part = tonumber(was[3]) or -1
  local alike = ARGV[7] ~= '1' and seen == known
  if not ARGV[8] or (alike and part_of(all, parts - part) == part) then
    if ARGV[8] then
      local met, agreed = renewed(was)
      write(tally, met .. ',' .. agreed .. ',' .. was[3], tally)
    end
    return {now[1], now[2], now[3], '', was[1], near, all, string.format('%.17g', cut_off), string.format('%.17g', at - tallied)}
  end
end

local members, here, alone, others, was = 0, 0, 0, 0, nil
local function count(met, agreed, part)
  if math.abs(at - met) < silent_after then here = here + 1 end
  if math.abs(at - agreed) >= silent_after then alone = alone + part end
end
for host, met, agreed, part in string.gmatch(text, '[{,]"([^"]*)":%[([^,%]]*),([^,%]]*),([^,%]]*)') do
  members = members + 1
  if host == name then
    was = {met, agreed, part}
  else
    others = others + (tonumber(part) or 1)
    count(tonumber(met) or 0, tonumber(agreed) or 0, tonumber(part) or 1)
  end
end
if members ~= select(2, string.gsub(text, '":%[', '')) then return now end
local entry, written = was, nil
if ARGV[8] then
  local met, agreed = ARGV[8], ARGV[9]
  if was then met, agreed = renewed(was) end
  members = was and members or members + 1
  local part = part_of(members, others)
  local said = string.format('%-24.17g', part)
  if was and tonumber(was[3]) == part then said = was[3] end
  entry = {met, agreed, said}
  written = table.concat(entry, ',')
  others = others + part
end
if entry then count(tonumber(entry[1]) or 0, tonumber(entry[2]) or 0, tonumber(entry[3]) or 1) end
if written then
  if not was then
    upto = select(2, string.find(text, '"members":{', 1, true))
    from = upto + 1
    written = '"' .. name .. '":[' .. written .. ']' .. (string.sub(text, from, from) == '}' and '' or ',')
  end
  local makes = outline(string.sub(text, 1, from - 1) .. written .. string.sub(text, upto + 1))
  write(tally, written, makes .. string.format(' %-24.17g%-8d%-8d%-24.17g%-31.17g', at, here, members, alone, others))
  seen = makes
end
local whole = written and (ARGV[7] == '1' or seen ~= known)
return {now[1], now[2], now[3], whole and text or '', was and was[1] or '', here, members, string.format('%.17g', alone), '0'}
"""
)
_REWRITE = (
    STAND
    + _OUTLINE
    + """
local now, times_of = stand(), {}
if now[1] ~= ARGV[1] or outline((untallied(now[4]))) ~= ARGV[2] then return now end
for name, times in string.gmatch(now[4], '[{,]("[^"]*":%[)([^,%]]*,[^,%]]*,)') do times_of[name] = times end
local text = string.gsub(ARGV[3], '([{,])("[^"]*":%[)([^,%]]*,[^,%]]*,)', function(before, name, times)
  return before .. name .. (name ~= ARGV[4] and times_of[name] or times)
end)
redis.call('SET', KEYS[1], text, 'EX', ARGV[5])
return {}
"""
)
_TIMES = re.compile(rb"\[[^,\]]*,[^,\]]*,")
_ENTRY = re.compile(rb'[{,]"[^"]*":\[[^,\]]*,[^,\]]*,[^,\]]*')
_TALLY = re.compile(rb',"tally":"[^"]*"\}$')
_WIDTH = 20
"""Characters of a time, so that the next one fits in its place."""


class Tally(NamedTuple):
    """What the entries of the roll come to."""

    server: str
    at: float
    """By the server's clock."""
    text: str
    """The roll, where our entry was written and it is not as it was known, or all of it was asked for."""
    met: float | None
    """What stood in our entry before, as in `Member`."""
    standing: Standing
    age: float
    """Seconds since the entries came to that."""


def outline(roll: Roll | None, text: str) -> str:
    """Name what a roll says in its text but for the times in its entries; "" where those cannot be told from the rest."""
    written = _TALLY.sub(b"}", text.encode(errors="surrogateescape"))
    if roll is None or len(_ENTRY.findall(written)) != len(roll.members):
        return ""
    return hashlib.sha1(_TIMES.sub(b"[", written), usedforsecurity=False).hexdigest()


class RollStore:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def read(self) -> Read:
        """Raises StoreSilent."""
        (read,) = await self._store.read([ROLL])
        return read

    async def enter(self, server: str, known: str, asking: Asking, *, whole: bool = False) -> Tally | Read:
        """Have a host's entry be as `enrol` makes it, in that life of the server; else give what stands there instead.

        `known`: the outline of the roll as the host knows it; `whole`: whether to give it in any case. Raises StoreSilent.
        """
        same = asking.server == server
        times = (asking.met, asking.agreed) if same else (NEVER, NEVER)
        entry = (*map(_padded, times), repr(asking.alone), str(int(same)))
        return await self._asked(server, known, asking.host, *entry, whole=whole)

    async def look(self, server: str, host: str) -> Tally | Read:
        """Give what the entries come to in that life of the server; else what stands there. Raises StoreSilent."""
        return await self._asked(server, "", host)

    async def _asked(self, server: str, known: str, host: str, *entry: str, whole: bool = False) -> Tally | Read:
        name = json.dumps(host)[1:-1]
        asked = (server, known, name, KEPT, SILENT_AFTER, REDUCED, int(whole))
        found = await self._run(_ENTER, *asked, *entry)
        stand, tally = read_of(found[:4]), found[4:]
        if not tally:
            return stand
        was, here, members, alone, age = tally
        standing = standing_of(int(here), int(members), float(alone))
        return Tally(*stand, float(was) if was else None, standing, float(age))

    async def rewrite(self, read: Read, before: Roll | None, roll: Roll, host: str = "") -> Read | None:
        """Put `roll` for `before`, which `read` said, if nobody has changed its outline; else give what stands there.

        Of the entries, but for that of `host`, the times stay that others have written meanwhile. Raises StoreSilent.
        """
        if before is None or before.server != read.server or not (known := outline(before, read.text)):
            (other,) = await self._store.swap([Swap(ROLL, read, roll.text())])
            return other
        found = await self._run(_REWRITE, read.server, known, roll.text(), f"{json.dumps(host)}:[", KEPT)
        return read_of(found) if found else None

    async def _run(self, script: str, *values: str | float) -> Any:
        async with self._store.answering():
            return await self._store.redis.eval(script, 1, self._store.key(ROLL), *map(str, values))


def _padded(time: float) -> str:
    return json.dumps(time).ljust(_WIDTH)
