"""What the supervisor and a worker say to each other."""
