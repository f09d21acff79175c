"""Where accelerators live: in this process, or in Ray actors.

Both pools perform the calls of `rpucluster.calls` with the same `Host`; they differ in where hosts are and in how
payloads get from one to the next.
"""

from rpucluster.pool.host import Host as Host
from rpucluster.pool.host import Written as Written
from rpucluster.pool.local import LocalPool as LocalPool
from rpucluster.pool.local import Pool as Pool
from rpucluster.pool.ray_pool import RayPool as RayPool
from rpucluster.pool.ray_session import ray_session as ray_session
