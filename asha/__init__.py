"""ASHA: Asterisk SARK High Availability."""

__version__ = "0.2.0"
