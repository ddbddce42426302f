"""What the cluster is doing, gathered under a deadline and told on one screen."""
