"""Asterisk as a process: which one it is, how it is started and ended."""
