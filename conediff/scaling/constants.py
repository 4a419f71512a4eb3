"""Tuned numbers of the scalings; those of single cones are in the files of `conediff.cones`."""

# A slack counts as its row's largest terms divided by this factor if it is smaller, and a dual likewise by
# its columns: having cancelled more than 6 bits, it has lost as many digits as a scaling could save. Larger:
# more programs are scaled, to worse conditioned ones; smaller: fewer, with less accurate derivatives.
CANCELLED = 2.0**6
# `ConeScaling.differs` if factors differ by more than this many doublings. Larger: programs stay in a scaling
# in which v has lost more digits; smaller: more programs are solved again for little.
CLOSE = 4.0
# No rescaling of columns of the scaled A whose largest entries are within this factor of one. Larger: worse
# conditioned columns; smaller: more of them are rescaled for little.
ORDINARY_COLUMN = 2.0**4
# No rescaling if the largest entry is within this factor of one. Larger: SCS, whose tolerances are partly
# absolute, sees less ordinary programs; smaller: more programs are rescaled, and Newton's factors are not
# handed to the derivative for those.
ORDINARY_PROGRAM = 2.0**7
# Rows, or columns, whose largest entries are within this factor of each other are not equilibrated. Larger:
# rows of programs in mixed units are less accurate; smaller: more programs are rescaled for little.
ORDINARY_RATIO = 2.0**5
# Rounds of Ruiz's equilibration: each takes the square root of what is left, so ten bring 2^100 to within a
# factor of two (Ruiz 2001).
RUIZ_ROUNDS = 10
