"""The control plane: the supervisor, and what decides the desired state."""
