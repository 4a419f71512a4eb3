"""The derivative of the solution map, forward and reverse: ``kkt_derivative`` of one part of a stack,
``batch_derivative`` of all of it, and ``diagnostics`` of how well it is defined.
"""
