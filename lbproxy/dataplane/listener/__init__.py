"""Where clients come in: TLS, the PROXY protocol, and what HTTP clients speak."""
