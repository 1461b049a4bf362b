"""cache: answers that were paid for once."""
