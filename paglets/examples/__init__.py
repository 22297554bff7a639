"""Programs to read and to copy: what a user of paglets writes, and nothing that a host needs."""
