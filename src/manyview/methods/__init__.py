"""From views to a `Scene`: one short file a family."""
