"""Which processes still hold the store, and how it is freed."""
