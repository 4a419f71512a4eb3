"""Tuned numbers of the JAX adapter."""

# Solutions that a call inside compiled code keeps for its derivative, and that no derivative has read yet (a
# number of solutions). A derivative whose solution is no longer kept is right all the same: it factorises
# again, which takes 1.5 to 3 times as long (docs/jax.md has the measurement). Larger values hold more memory
# while a loop runs (lax.scan) that is differentiated afterwards.
MAX_UNREAD = 16
# Solutions that a derivative has read, and that another may read (a loop over cotangents). Larger values hold
# more memory between two steps of a training loop.
MAX_READ = 1
