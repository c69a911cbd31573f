"""Membership: which nodes and instances there are, what they can do, who owns them."""
