"""Tuned numbers of this package."""

# Parts handed out for each worker of an executor. More parts level out programs of unequal difficulty; each
# costs one message of about a millisecond in a process pool.
PARTS_PER_WORKER = 4
# Number of workers assumed where an executor does not tell.
ASSUMED_WORKERS = 8
# Bytes of numbers in one message to a worker, at most: larger messages take no less time per byte.
MESSAGE_BYTES = 8 << 20
# How often a part that was lost with its worker is submitted again before it is done in this process.
RESUBMISSIONS = 1
# Shared objects that a worker keeps, in number; the least recently used is dropped first.
KEPT_OBJECTS = 16
# Sizes of thread pools that are kept, in number.
KEPT_POOLS = 4
