"""The services leave systemd for the cluster, and the way back."""
