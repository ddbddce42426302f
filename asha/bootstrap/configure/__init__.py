"""The questions, what is suggested, and the answers: asha.conf."""
