"""Training steps on clusters of GPUs or CPUs, in closed form: the baselines that RPU clusters are compared with."""

from rpucluster.conventional.chain import Chain as Chain
from rpucluster.conventional.chain import chain as chain
from rpucluster.conventional.links import Links as Links
from rpucluster.conventional.memory import Memory as Memory
from rpucluster.conventional.setting import Setting as Setting
from rpucluster.conventional.step import ConventionalStep as ConventionalStep
from rpucluster.conventional.step import baseline as baseline
from rpucluster.conventional.step import setting_of as setting_of
from rpucluster.conventional.step import step as step
