"""Test doubles and aids that ship with the package, for its own tests and for those of plug-ins."""
