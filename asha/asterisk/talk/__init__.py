"""Talking to Asterisk: several conversations side by side, none able to hang us."""
