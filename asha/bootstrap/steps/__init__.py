"""The steps of the plan, one module each."""
