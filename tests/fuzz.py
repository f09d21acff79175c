"""Files that somebody has broken: cases by number, each what a file holds and what reads it.

A case is a whole file that was changed, by its bytes or by what they mean, so that checks behind the first ones are
reached too: TOML with values of other kinds and sizes, IDX headers that promise anything, Parquet footers, manifests
that are sealed again.  `perform` says whether it was accepted or refused; anything else that is raised is a fault.
"""

import gzip
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from rpucluster.checkpoint import MANIFEST, complete, open_checkpoint
from rpucluster.cluster import load_cluster
from rpucluster.config import shipped, write_toml
from rpucluster.coordinator import find, run
from rpucluster.coordinator.resume import counters_for
from rpucluster.data import load_data, read_idx
from rpucluster.errors import RpuclusterError
from rpucluster.files import file_digest, read_sealed, write_sealed
from rpucluster.host_memory import check_memory
from rpucluster.job import load_job
from rpucluster.job.training import DataSpec
from rpucluster.partitioner import partition
from rpucluster.shard_state import weights_in
from tests.specs import make_cluster, make_job

VALUES: list[Any] = [
    0, 1, -1, 2, 7, 255, 10**6, 2**31, 2**63 - 1, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-300, 1e300, float("inf"),
    float("-inf"), float("nan"), True, False, "", "x", "auto", "none", "80 ns", "-80 ns", "50 GB/s", "1e999 s", "nan s",
    "\x00", "\u202e" * 50, "../../etc/passwd", "/", "~nobody-at-all/x", "a" * 5000,
    [], [[]], [0], [1, 2, 3], ["a", 1], [[0, 0.1]],
    [[0, float("nan")]], [2**62, 2**62], [10**9, 10**9, 10], {}, {"a": 1}, [{}], [{"kind": "dense"}],
]  # fmt: skip


def broken_bytes(content: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, put in, taken out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[at : at + chance.randrange(1, 40)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 200)]
            case 4:
                data[at : at + 8] = chance.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7))
            case _ if chance.random() < 0.2:
                del data[at:]
    return bytes(data)


def broken_tables(tables: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Some keys with another value, gone, or unknown, anywhere in parsed TOML or JSON."""
    for _ in range(chance.choice((1, 1, 1, 2))):
        here: Any = tables
        while True:
            inner = [key for key in _keys(here) if isinstance(here[key], dict | list) and here[key]]
            if not inner or chance.random() < 0.3:
                break
            here = here[chance.choice(inner)]
        keys = _keys(here)
        if not keys:
            continue
        key = chance.choice(keys)
        match chance.randrange(8):
            case 0:
                del here[key]
            case 1 if isinstance(here, dict):
                here[chance.choice(("nonsense", str(key)[:-1] + "x", "", "name"))] = chance.choice(VALUES)
            case 2 if isinstance(here, list):
                here.append(chance.choice(VALUES))
            case _:
                here[key] = chance.choice(VALUES)
    return tables


def _keys(here: Any) -> list[Any]:
    return list(here) if isinstance(here, dict) else list(range(len(here)))


class Fuzzer:
    """Makes and performs cases in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = [shipped("job")["digits"].read_bytes(), shipped("job")["resnet50"].read_bytes(), JOB.encode()]
        self.clusters = [path.read_bytes() for path in shipped("cluster").values()]
        self.kinds: dict[str, Callable[[random.Random], None]] = {
            "job": self.job,
            "cluster": self.cluster,
            "IDX": self.idx,
            "Parquet": self.parquet,
            "checkpoint": self.checkpoint,
        }
        self._tables = [self._table(kind) for kind in range(4)]
        self._run: Path | None = None

    def perform(self, kind: str, number: int) -> str:
        """`accepted` or `refused`; raises whatever else the case leads to."""
        try:
            self.kinds[kind](random.Random(f"{kind} {number}"))
        except RpuclusterError as error:
            if not str(error).strip():
                raise AssertionError("a message without words") from error
            return "refused"
        return "accepted"

    def job(self, chance: random.Random) -> None:
        """Read, planned, and asked for its memory; what is accepted says the same when it is written and read again."""
        path = self._toml(self.jobs, chance)
        job = load_job(path)
        text = write_toml(job)
        path.write_text(text)
        assert write_toml(load_job(path)) == text
        check_memory(job, partition(job, make_cluster(8, tile=64, tiles=10**6)), "local")

    def cluster(self, chance: random.Random) -> None:
        """Read, and planned on; what is accepted says the same when it is written and read again."""
        path = self._toml(self.clusters, chance)
        cluster = load_cluster(path)
        text = write_toml(cluster)
        path.write_text(text)
        assert write_toml(load_cluster(path)) == text
        partition(make_job(), cluster)

    def _toml(self, originals: list[bytes], chance: random.Random) -> Path:
        content = chance.choice(originals)
        path = self.folder / "spec.toml"
        if chance.random() < 0.3:
            path.write_bytes(broken_bytes(content, chance))
        elif chance.random() < 0.02:
            path.write_text("a = " + chance.choice("[{") * 20_000)
        else:
            path.write_text(tomli_w.dumps(broken_tables(tomllib.loads(content.decode()), chance)))
        return path

    def idx(self, chance: random.Random) -> None:
        """Headers that promise anything, gzipped or not."""
        shape = [chance.choice((0, 1, 2, 5, 28, 2**16, 2**31, 2**32 - 1)) for _ in range(chance.choice((1, 3, 3, 3)))]
        if chance.random() < 0.6:
            shape = [3, 4, 5]
        head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        content = head + chance.randbytes(chance.choice((0, 59, 60, 60, 61, 1000)))
        if chance.random() < 0.5:
            content = broken_bytes(content, chance)
        if chance.random() < 0.5:
            content = gzip.compress(content)
            if chance.random() < 0.6:
                content = broken_bytes(content, chance)
        path = self.folder / "images"
        path.write_bytes(content)
        found = read_idx(path, 3)
        assert found.size <= len(content) * 1100  # what gzip can make of it

    def parquet(self, chance: random.Random) -> None:
        """Data sets of several types, broken anywhere or in the footer."""
        content = chance.choice(self._tables)
        split = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        if chance.random() < 0.5:
            content = content[:split] + broken_bytes(content[split:], chance)
        else:
            content = broken_bytes(content, chance)
        path = self.folder / "data.parquet"
        path.write_bytes(content)
        data = load_data(DataSpec(name="parquet", path=str(path), test_fraction=0.25))
        assert np.isfinite(data.train_x).all()

    def _table(self, kind: int) -> bytes:
        images = [[i + j / 8 for j in range(6)] for i in range(40)]
        types = (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 6), pa.list_(pa.uint8()))
        values = [[int(v) for v in row] for row in images] if kind == 3 else images
        path = self.folder / "table.parquet"
        table = pa.table({"image": pa.array(values, types[kind]), "label": [i % 10 for i in range(40)]})
        pq.write_table(table, path, row_group_size=15, compression=("none", "snappy", "zstd", "gzip")[kind])
        return path.read_bytes()

    def checkpoint(self, chance: random.Random) -> None:
        """One file broken: by bytes, or by what it says with the seals put right again."""
        if self._run is None:
            self._run = self.folder / "whole"
            job = make_job(run={"checkpoint_every": "5 steps"}, parallel={"tensor": 2}, algorithm={"kind": "tiki_taka"})
            run(job, make_cluster(), executor="local", out=self._run)
        broken = self.folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(self._run / "checkpoint", broken / "checkpoint")
        folder = complete(broken / "checkpoint")[0]
        path = chance.choice(sorted(folder.iterdir()))
        if path.name == MANIFEST:
            if chance.random() < 0.7:
                write_sealed(path, broken_tables(read_sealed(path), chance))
            else:
                path.write_bytes(broken_bytes(path.read_bytes(), chance))
        else:
            path.write_bytes(broken_bytes(path.read_bytes(), chance))
            if chance.random() < 0.8:
                manifest = read_sealed(folder / MANIFEST)
                for file in manifest["files"]:
                    if file["name"] == path.name:
                        file.update(sha256=file_digest(path), bytes=path.stat().st_size)
                write_sealed(folder / MANIFEST, manifest)
        source = find(folder)
        job, cluster = source.specs()
        plan = partition(job, cluster)
        assert source.position.steps >= 0
        counters_for(plan, source.checkpoint)
        for array in weights_in(open_checkpoint(folder).files).values():
            assert array.dtype == np.float32


JOB = write_toml(make_job(parallel={"tensor": 2, "pipeline": 2}, algorithm={"kind": "agad", "chop_every": 2}))
