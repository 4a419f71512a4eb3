"""
Reading digits with exact zeros: a Keras model fitted end to end
================================================================

Learned: a classifier of the 1797 handwritten digits in scikit-learn. The last layer is a convex problem in
place of a softmax. It gives a probability of exactly zero to digits that it rules out. The loss is computed
from the optimal value of the same problem.

Expect: on 540 digits that were not used for learning, more than 95 % of the most probable digits are right,
and the model rules out the true digit in less than 1 % of the images. In more than half of the images it
leaves only one digit; of these, more than 99 % are right.
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
# For scores s, the problem minimises ``|p|^2 / 2 - s'p`` over probabilities p in the simplex (sparsemax). The
# layer returns p and the optimal value.

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
# The loss is the objective at the true label, ``1/2 - s'label``, minus the optimal value. It is nonnegative,
# and zero exactly if p is the label. Its gradient with respect to the scores is p - label, which is not zero
# if the true digit was ruled out. (The gradient of the squared difference of p and the label is zero in that
# case.)

regret = 0.5 - keras.ops.sum(scores * label, axis=1) - value
trainer = keras.Model([image, label], regret)
trainer.compile(keras.optimizers.Adam(0.005), loss="mae")
labels = np.eye(10)[y]
with tqdm(total=12, desc="learning to read") as bar:
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())
    fit = trainer.fit([X, labels], np.zeros(len(X)), epochs=12, batch_size=64, verbose=0, callbacks=[count])
history = fit.history["loss"]

# %%
# Results on test data
# --------------------

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
# The digits with the lowest probabilities
# ----------------------------------------

doubtful = np.argsort(read.max(axis=1))[:8]
figure, panels = plt.subplots(2, 8, figsize=(10, 3), layout="constrained", height_ratios=(2, 1))
for picture, bars, k in zip(*panels, doubtful, strict=True):
    picture.imshow(X_test[k].reshape(8, 8), cmap="gray_r")
    picture.set(xticks=[], yticks=[], title=f"a {y_test[k]}")
    bars.bar(range(10), read[k], color=["tab:orange" if d == y_test[k] else "tab:blue" for d in range(10)])
    bars.set(xticks=range(0, 10, 3), yticks=[], ylim=(0, 0.7))
panels[1, 0].set_ylabel("probability")
figure.supxlabel("digit; the true one is orange")
figure.savefig("keras_digits.png")
