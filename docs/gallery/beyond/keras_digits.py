"""
Reading digits, with doubts: a Keras model fitted end to end
============================================================

Learned: to read the 1797 handwritten digits that scikit-learn ships. The last layer is a convex problem in
place of a softmax: the probabilities of digits that it rules out are exactly zero. The same problem's
optimal value is the loss.

Expect: of 540 digits that were not used for learning, more than 95 percent of its first choices are right,
and fewer than one percent of the digits are ruled out. About more than half of them it is certain, that is,
only one digit is left; of these, more than 99 percent are right.
"""

import cvxpy as cp
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from conediff.tensorflow import CvxpyLayer

keras.utils.set_random_seed(0)
images, digits = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(images / 16, digits, test_size=540, random_state=0, stratify=digits)

# %%
# The model
# ---------
# From scores s the problem makes probabilities p, and its optimal value: ``|p|^2 / 2 - s'p``, minimised over
# the simplex (sparsemax).

p, s = cp.Variable(10), cp.Parameter(10)
problem = cp.Problem(cp.Minimize(cp.sum_squares(p) / 2 - s @ p), [cp.sum(p) == 1, p >= 0])

image, label = keras.Input((64,)), keras.Input((10,))
hidden = keras.layers.Dense(64, activation="relu")(image)
scores = keras.layers.Dense(10)(hidden)
probabilities, value = CvxpyLayer(problem, [s], [p, problem.objective])(scores)
reader = keras.Model(image, probabilities)

# %%
# The loss
# --------
# By how much the true label is worse than the best p: ``1/2 - s'label`` less the optimal value. It is never
# negative, zero exactly where p is the label, and its gradient by the scores is p - label, which does not
# vanish where the truth was ruled out. (That of the squared difference of p and the label does.)

regret = 0.5 - keras.ops.sum(scores * label, axis=1) - value
trainer = keras.Model([image, label], regret)
trainer.compile(keras.optimizers.Adam(0.005), loss="mae")
labels = np.eye(10)[y]
with tqdm(total=12, desc="learning to read") as bar:
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())
    fit = trainer.fit([X, labels], np.zeros(len(X)), epochs=12, batch_size=64, verbose=0, callbacks=[count])
history = fit.history["loss"]

# %%
# What it reads, and what it rules out
# ------------------------------------

read = reader.predict(X_test, verbose=0)
left = (read > 1e-6).sum(axis=1)
right = read.argmax(axis=1) == y_test
kept = read[np.arange(len(read)), y_test] > 1e-6
certain = left == 1
print(f"loss: {history[0]:.3f} in the first epoch, {history[-1]:.3f} in the last")
print(f"first choices that are right: {right.mean():.1%}; digits that are not ruled out: {kept.mean():.1%}")
print(f"certain of {certain.mean():.1%}, and right in {right[certain].mean():.1%} of these")
assert np.abs(read.sum(axis=1) - 1).max() < 1e-5 and read.min() > -1e-6
assert right.mean() > 0.95 and kept.mean() > 0.99
assert certain.mean() > 0.5 and right[certain].mean() > 0.99

# %%
# The digits that it hesitates about most
# ---------------------------------------

doubtful = np.argsort(read.max(axis=1))[:8]
figure, panels = plt.subplots(2, 8, figsize=(10, 3), layout="constrained", height_ratios=(2, 1))
for picture, bars, k in zip(*panels, doubtful, strict=True):
    picture.imshow(X_test[k].reshape(8, 8), cmap="gray_r")
    picture.set(xticks=[], yticks=[], title=f"a {y_test[k]}")
    bars.bar(range(10), read[k], color=["tab:orange" if d == y_test[k] else "tab:blue" for d in range(10)])
    bars.set(xticks=range(0, 10, 3), yticks=[], ylim=(0, 0.7))
panels[1, 0].set_ylabel("probability")
figure.savefig("keras_digits.png")
