"""The state of the cluster, collected under a deadline and shown on one screen."""
