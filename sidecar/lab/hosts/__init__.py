"""A fleet in the lab: several Postfix hosts in networks of their own, one Redis, and providers that count all as one."""
