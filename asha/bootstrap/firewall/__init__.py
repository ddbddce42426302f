"""The cluster's ports, in whichever firewall this machine has."""
