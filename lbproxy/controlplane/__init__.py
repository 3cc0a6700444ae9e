"""The control plane: configuration, desired state, health, the admin API and the supervisor of the workers."""
