"""The options of ``[target-group:NAME]``, by what they are for."""
