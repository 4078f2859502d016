"""How the hosts of a fleet agree about sub-queues: values and decisions, no store and no clock."""
