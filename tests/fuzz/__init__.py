"""Every parser and protocol that takes bytes from another user or host, given bad ones.

A target (``targets.py`` and its like) makes an input from a valid sample and gives it to
ASHA's public function. The oracle: it returns, or raises one of its declared errors,
within its time, without a traceback, without much memory, and writes nowhere but in its
scratch directory. An input is made from the seed, the target's name and its number alone,
so that each can be made again.

    python3 -m tests.fuzz --help
"""
