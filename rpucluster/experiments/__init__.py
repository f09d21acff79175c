"""The paper's experiments: declared, run, resumed, and put beside the paper's values with how sure those are.

`rpucluster.experiments.reproduce.reproduce` is the way in.  Nothing is imported here, since each run is a process of
its own that needs no more than `trials`.
"""
