"""The APIs that operators, monitoring systems and the `lbproxy` command talk to."""
