"""The two worlds a policy runs in: blocking threads, and event loops."""
