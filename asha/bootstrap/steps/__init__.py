"""What each step of the plan does, one module each."""
