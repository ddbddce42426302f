"""ASHA: Asterisk SARK High Availability."""

__version__ = "0.1.0"
