"""Active health checks: what a probe says (`probes`), what follows from it (`status`) and when to probe (`checker`)."""
