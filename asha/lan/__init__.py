"""This node's place in the LAN: does it work, and from which address is sent into it?

One watcher on each node tells Pacemaker whether the node's LAN works. The kernel tells of the
carrier and of addresses (netlink), the gateway and the other node answer ARP. What was found
is a node attribute, and a rule of cib/asha.crm makes of it whose node is the better one for
the telephones. routes.py is what the agent lan-source needs of the kernel's routes.
"""

from __future__ import annotations

# The node attribute. Whoever changes its values changes l_lan in cib/asha.crm.
ATTRIBUTE = "asha-lan"
# What it can be. Without it nothing is known of that node's LAN.
OK = "ok"
NO_CARRIER = "no-carrier"
NO_ANSWER = "no-answer"
# It works again, and not for long enough yet.
UNSTEADY = "unsteady"

# The node attribute by which lan-source says what is degraded.
SOURCE_ATTRIBUTE = "asha-lan-source"

# The resource that has the virtual address (cib/asha.crm).
ADDRESS = "p_ip"
