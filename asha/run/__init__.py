"""Running things that may hang: one deadline, programs, children, a lock, and the outcome."""
