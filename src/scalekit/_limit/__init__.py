"""limit: how many calls run at once."""
