"""Where in a file of rules something stands: TOML's reader gives values without their lines, and a message needs one."""

import re
from typing import Final

_SCAN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|\#[^\n]*'  # keys do not stand in these
    r"|^[ \t]*\[\[[ \t]*(?P<rule>rule)[ \t]*\]\]|^[ \t]*(?P<key>[\w-]+)[ \t]*=",
    re.MULTILINE | re.DOTALL,
)
_TOLD: Final = re.compile(r"\(at line (\d+)")


def line_of(text: str, rule: int, key: str, said: str = "") -> int:
    """The line, from 1, of a key in the rule of that number (0: before the rules); of the rule where it has no such
    key; of what is `said` in its value where that can be found. 0 where there is no such rule."""
    number, at, end = 0, 0 if rule == 0 else -1, len(text)
    found_key = False
    for found in _SCAN.finditer(text):
        if found["rule"]:
            number += 1
            if number == rule:
                at = found.start("rule")
            elif number > rule:
                end = found.start()
                break
        elif found["key"] and number == rule and found["key"] == key and not found_key:
            found_key, at = True, found.start("key")
    if at < 0:
        return 0
    if found_key and said and (exactly := text.find(said, at, end)) >= 0:
        at = exactly
    return text.count("\n", 0, at) + 1 if found_key or rule else 1


def line_told(message: str) -> int:
    """The line that tomllib tells in its message; 0 where it tells none."""
    told = _TOLD.search(message)
    return int(told[1]) if told else 0
