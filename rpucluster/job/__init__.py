"""One experiment as a TOML file describes it: `load_job(name_or_path)` -> `Job`."""

from rpucluster.job.job import JOB_TABLES as JOB_TABLES
from rpucluster.job.job import Job as Job
from rpucluster.job.job import load_job as load_job
