"""The PBX's data on the replicated disk: bind mounts, space, databases, holders."""
