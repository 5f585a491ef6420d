"""From texts and images to vectors: every asked layer and view in one pass, kept on disk."""
