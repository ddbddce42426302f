"""Running what may hang: one deadline, programs, children, a lock, and the outcome."""
