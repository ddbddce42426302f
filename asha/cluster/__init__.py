"""What ASHA writes for, and reads from, Corosync, DRBD and Pacemaker."""
