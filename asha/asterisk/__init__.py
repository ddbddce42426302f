"""Looking at and talking to Asterisk; what to make of it is the agent's business.

process looks at it with the kernel's eyes, starts it and ends it; talk has the
conversations with it; probes asks it whether it lives.
"""

# The node attribute that says what is degraded of it.
ATTRIBUTE = "asha-asterisk"
