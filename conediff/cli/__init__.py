"""The commands of ``python -m conediff``, one module each: ``check``, ``info`` and ``demo``.

``check_cases`` has the cone programs that ``check`` solves.
"""
