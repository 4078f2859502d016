"""What the hosts of a fleet share: the store, and the task that talks to it; all rules are in policies/fleet."""
