"""The control plane: everything that decides what the workers serve, and never sees a client's byte."""
