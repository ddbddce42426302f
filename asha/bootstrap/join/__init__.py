"""What the two nodes say to each other: a second node joins, a new secret goes to both."""
