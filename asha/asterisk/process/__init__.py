"""Asterisk as a process: which it is, how it is started and ended."""
