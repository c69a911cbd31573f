"""Values, tables and decisions of dispatch. Pure."""
