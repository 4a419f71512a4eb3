"""The forward pass: SCS finds the first digits, Newton's method the rest.

In the order of use: ``settings`` and ``scs_settings``, ``scs`` (the only code that calls SCS),
``newton``, ``schedule`` (which method solves what), ``result``, ``batch_solver`` (scalings and parts).
"""
