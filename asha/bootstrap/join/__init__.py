"""The two nodes talk: one lets the other in, and a new secret goes to both."""
