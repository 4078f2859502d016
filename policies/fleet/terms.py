"""How long things last between hosts, in seconds: each host's own, and the store's. Nothing here compares the clocks
of two machines."""

LEASE = 6.0
"""A lead or a share of a budget, unless renewed: on the host from when it asked, in the store from when that read it."""
SILENT_AFTER = 6.0
"""A host that had no answer for so long is counted as on its own."""
FRESH = 1.0
"""How old the roll may be, by the asking host's clock, when a book is written by it."""
ALONE_AFTER = SILENT_AFTER + FRESH + LEASE
"""So long after its last answer a host goes on alone: what others were lent without regard to that has run out."""
GRACE = ALONE_AFTER
"""So long a store that is new to a book (restarted, emptied, failed over) lends nothing: what the old one lent runs out."""
ROUND = 2.0
"""Between two times that a host asks."""
DUE_AFTER = 0.7 * ROUND
"""What was asked for so long ago is asked for again in this round: rounds begin a little early, and unevenly."""
REDUCED = 0.5
"""Part of the fleet's budget that all hosts together take when each is alone."""
LONGEST_PAUSE = 7 * 86_400.0
"""Whoever asks for it: by then all mail that was held has left for its age, several times over."""
FORGOTTEN_AFTER = 86_400.0
"""A host of which nothing was heard for so long is no member any more: a majority is not to wait for it for ever."""
NEVER = -1e18
"""A time before all others that JSON can say."""
