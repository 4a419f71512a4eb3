"""What a user of cone programs calls and holds.

``solve`` (the calls), ``solution`` and ``derivative`` (what they return), ``failures`` (elements without a
solution).
"""
