"""Use-cases of membership and leadership over ports."""
