"""Doubles that ship with the package: for our tests, and for trying things out."""
