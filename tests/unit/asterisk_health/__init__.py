"""The agent as Pacemaker runs it, over a fake Asterisk that is a real process."""
