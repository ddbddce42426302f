"""The cluster's ports, in the firewall that this machine has."""
