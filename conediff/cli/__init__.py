"""What ``python -m conediff`` runs: ``check``, ``info`` and ``demo``."""
