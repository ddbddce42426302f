"""The cluster takes the services from systemd, and the way back."""
