"""The paper's experiments: declared, run, resumed, and put beside the paper's values with how sure those are."""

from rpucluster.experiments.bar import Bar as Bar
from rpucluster.experiments.reproduce import Figure as Figure
from rpucluster.experiments.reproduce import Reproduction as Reproduction
from rpucluster.experiments.reproduce import reproduce as reproduce
from rpucluster.experiments.request import ALL as ALL
from rpucluster.experiments.request import Request as Request
