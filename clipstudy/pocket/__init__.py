"""The pocket world: a miniature of the study with its own language and scenes, which needs no network.

``language`` speaks, ``corpora`` writes the text data sets in the layouts of the real ones, ``baselines`` says what is
trivial in them.
"""
