"""The LAN counts: one watcher on each node tells Pacemaker whether the node's LAN works.

The kernel tells of the carrier and of addresses (netlink), the gateway and the other node
answer ARP. What was found is a node attribute, and a rule of cib/asha.crm makes of it
whose node is the better one for the telephones.
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

# The resource that has the virtual address (cib/asha.crm).
ADDRESS = "p_ip"
