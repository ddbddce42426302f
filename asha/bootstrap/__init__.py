"""From two bare Debian boxes to a cluster: facts, questions, checks, steps."""
