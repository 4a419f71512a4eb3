"""The constants of this package, each with its unit and effect."""

# Largest number of block-diagonal patterns that one pattern caches. A larger value keeps memory for batch
# sizes no longer in use; a smaller one builds patterns again if batch sizes alternate.
CACHED_BLOCK_DIAGONALS = 4

# Products with a matrix are dense if rows * columns <= DENSE_RATIO * nnz + DENSE_MINIMUM (entries). A sparse
# product costs several times as much per entry as a dense one, and about 10 microseconds more per call.
# Larger values use dense products, and their memory, for larger and sparser matrices.
DENSE_RATIO = 4
DENSE_MINIMUM = 256

# P counts as symmetric if no entry of P - P' exceeds this fraction of the largest entry of P. It allows for
# rounding errors in the caller's products; a larger value would hide a wrong triangle.
SYMMETRY_TOLERANCE = 1e-12
