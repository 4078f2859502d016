"""A private real Postfix, simulated providers, a sending fleet and an oracle that counts every message."""
