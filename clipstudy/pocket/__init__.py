"""The pocket world: a miniature of the study with its own language and pictures, which needs no network.

``lexicon`` → ``inflect`` → ``vocabulary`` → ``phrases`` → ``language`` say sentences as trees (``tree``); ``labels``,
``probing`` and ``pairs`` make data sets of them, ``corpora`` writes those, ``baselines`` says what is trivial in them.
``silhouettes`` → ``scenes`` → ``drawing`` make pictures, ``pictures`` writes them, ``captions`` says what they show;
``mixture`` is the text that models are pretrained on.
``wordlist`` and ``models`` say what the seven models are, ``batches`` and ``objectives`` what they learn from;
``pretrain`` trains one, ``evaluation`` says what it can do, and ``twins`` what models have in common; ``workshop``
trains them all, a process each, and ``card`` tells what came of it.
"""
