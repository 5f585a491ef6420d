"""The pocket world: a miniature of the study with its own language and pictures, which needs no network.

``text``: ``lexicon`` → ``inflect`` → ``vocabulary`` → ``phrases`` → ``language`` say sentences as trees (``tree``);
``labels``, ``probing`` and ``pairs`` make data sets of them, ``captions`` says what a scene shows, ``mixture`` is the
text that models are pretrained on, and ``wordlist`` their one tokenizer.
``images``: ``silhouettes`` and ``grounds`` → ``scenes`` → ``drawing`` make pictures, ``pictures`` writes them.
``training``: ``models`` says what the seven models are, ``batches`` and ``objectives`` what they learn from;
``pretrain`` trains one, ``evaluation`` says what it can do, and ``twins`` what models have in common; ``workshop``
trains them all, a process each, and ``card`` tells what came of it.
Here: ``corpora`` writes all data sets, ``baselines`` says what is trivial in them.
"""
