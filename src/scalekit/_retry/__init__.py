"""retry: another attempt, when it can help."""
