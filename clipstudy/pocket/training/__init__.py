"""The pocket models: what they are, how they are trained, and what each is worth."""
