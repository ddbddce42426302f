"""Stand-ins for a kernel, a machine, Asterisk and a relay, for the unit tests."""
