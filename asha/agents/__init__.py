"""The agents: one module each, policy only, readable from top to bottom."""
