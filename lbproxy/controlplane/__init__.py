"""The control plane: everything that runs in the supervisor and never sees a client's byte."""
