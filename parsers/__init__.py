"""Text in, typed facts out: no I/O, no clock, no logging."""
