"""What an operator sees: accounts in the log (metrics, health and pages later)."""
