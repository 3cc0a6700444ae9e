"""Service discovery: follows where a group's targets are listed, and tells the state which there are now."""
