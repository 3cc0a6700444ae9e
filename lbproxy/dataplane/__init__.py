"""The data plane: what a worker does with clients' bytes."""
