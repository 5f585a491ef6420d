"""The pocket language: its words and grammar, the data sets made of it, and what scenes are called in it."""
