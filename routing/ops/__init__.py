"""The operator pages: what they show, who may look, what they may do."""
