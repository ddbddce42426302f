"""Looks at Asterisk and talks to it; the agent draws the conclusions.

process sees it through the kernel, starts it and ends it; talk has the connections to it;
probes asks whether it works.
"""

# The node attribute that says what is degraded of it.
ATTRIBUTE = "asha-asterisk"

# And the last hang that Pacemaker was told of between two monitors: seconds since 1970, and
# the reason.
HANG_ATTRIBUTE = "asha-asterisk-hang"
