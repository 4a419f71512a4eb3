"""The forward pass: SCS or Clarabel finds the first digits, Newton's method the rest.

In the order of use: ``settings``, ``scs_settings`` and ``clarabel_settings``, ``scs`` (the only code that
calls SCS), ``clarabel`` (the only code that calls Clarabel) with ``clarabel_cones``, ``certificates``,
``newton``, ``schedule`` (which method solves what), ``result``, ``batch_solver`` (scalings and parts).
"""
