"""Everything is in pyproject.toml; this file answers tools that still call setup.py."""

from setuptools import setup

setup()
