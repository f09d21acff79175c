"""Data sets: scikit-learn's digits, MNIST from IDX files, any Parquet file with vectors and labels."""

from rpucluster.data.dataset import DIGITS_TEST_SAMPLES as DIGITS_TEST_SAMPLES
from rpucluster.data.dataset import Dataset as Dataset
from rpucluster.data.dataset import DataSource as DataSource
from rpucluster.data.dataset import check_against as check_against
from rpucluster.data.dataset import epoch_order as epoch_order
from rpucluster.data.dataset import load_data as load_data
from rpucluster.data.dataset import nudged as nudged
from rpucluster.data.idx import read_idx as read_idx
