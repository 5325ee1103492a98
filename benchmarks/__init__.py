"""What pubd costs, measured beside what it replaces."""
