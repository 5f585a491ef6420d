"""From texts to vectors: every asked layer and view in one pass, kept on disk."""
