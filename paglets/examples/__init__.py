"""Example programs for users of paglets to read and copy. A host does not need them."""
