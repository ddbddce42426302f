"""This machine as it is: NICs, disks, services, processes, directories."""
