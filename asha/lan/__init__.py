"""This node's place in the LAN, as the kernel has it. Knows no telephony."""

# The node attribute by which lan-source says what is degraded.
SOURCE_ATTRIBUTE = "asha-lan-source"
