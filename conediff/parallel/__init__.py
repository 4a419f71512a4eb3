"""Work on the parts of a stack: in ``threads`` of this process, or by the workers of an ``executor``."""
