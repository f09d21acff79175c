"""Networks by shape: what arrays, vectors, digital work and activations they consist of."""

from rpucluster.model.layer import MAX_LINES as MAX_LINES
from rpucluster.model.layer import Activation as Activation
from rpucluster.model.layer import Bias as Bias
from rpucluster.model.layer import Layer as Layer
from rpucluster.model.layer import TensorSplit as TensorSplit
from rpucluster.model.layer import dense as dense
from rpucluster.model.network import MAX_WEIGHTS as MAX_WEIGHTS
from rpucluster.model.network import Loss as Loss
from rpucluster.model.network import Model as Model
from rpucluster.model.network import default_name as default_name
from rpucluster.model.network import mlp as mlp
