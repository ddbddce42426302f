"""Debian's pybuild wants this file; everything is said in setup.cfg."""

from setuptools import setup

setup()
