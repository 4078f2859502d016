"""The sources outside: what to ask each of them, and how to read what it answers. No waiting in here."""
