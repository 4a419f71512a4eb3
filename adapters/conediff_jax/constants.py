"""Tuned numbers of the JAX adapter."""

# Solutions that a call inside compiled code keeps for its derivative, and that no derivative has read yet (a
# number of solutions). A derivative whose solution is no longer kept is right all the same, but factorises
# again: the gradient of random quadratic programs, solve included, then takes 5 to 20 % longer (5 to 50
# variables, in batches of 8 and 32). Larger values hold more memory while a loop (lax.scan) runs that is
# differentiated afterwards.
MAX_UNREAD = 16
# Solutions that a derivative has read, and that another may read (a loop over cotangents). Larger values hold
# more memory between two steps of a training loop.
MAX_READ = 1
