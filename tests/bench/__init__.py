"""make bench: the stack of 2014 and this one take turns on the same two nodes."""
