"""Report mail: what mailbox providers and other servers write to us about our mail. Bytes in, typed reports out.

Strangers write it: every size, depth and count has a limit, and what is refused says why (`refusal.ReportError`).
"""
