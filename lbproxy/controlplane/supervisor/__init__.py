"""The supervisor: owns the listening sockets, runs the workers and takes every change to them."""
