"""Talking to Asterisk: several connections in parallel, none of which can make us hang."""
