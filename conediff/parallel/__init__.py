"""Work on the parts of a stack: by threads of this process, or by the workers of an executor.

`backend` returns one or the other; both cut a stack into parts and map a function over them. ``threads`` has
the pool of threads, ``executor`` sends jobs to any ``concurrent.futures.Executor``, ``interrupts`` keeps
ctrl-C working while SCS runs, ``progress`` shows how far a map is.
"""

from conediff.parallel.backend import Backend, backend
from conediff.parallel.threads import ThreadBackend, mapper

__all__ = ["Backend", "ThreadBackend", "backend", "mapper"]
