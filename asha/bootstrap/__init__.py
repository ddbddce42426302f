"""From two bare Debian machines to a cluster: facts, questions, checks, steps."""
