"""Fencing: what must be certain before a node writes on without the other one."""
