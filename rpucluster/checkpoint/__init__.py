"""Checkpoints on disk: pieces of arrays in checksummed Parquet files, and the manifest that makes them one state.

    checkpoint/step-000000000400/
        manifest.json               written last, with its own checksum: the files with theirs, and what was handed in
        accelerator-00000.parquet   everything that this accelerator's shards keep

A checkpoint is written under a temporary name and renamed when it is whole, so a folder of the final name is complete.
Nothing is pickled, and sizes are checked against those of the files before anything is allocated.
"""

from rpucluster.checkpoint.folder import MANIFEST as MANIFEST
from rpucluster.checkpoint.folder import Checkpoint as Checkpoint
from rpucluster.checkpoint.folder import abandon as abandon
from rpucluster.checkpoint.folder import begin as begin
from rpucluster.checkpoint.folder import complete as complete
from rpucluster.checkpoint.folder import finish as finish
from rpucluster.checkpoint.folder import newest as newest
from rpucluster.checkpoint.folder import newest_good as newest_good
from rpucluster.checkpoint.folder import open_checkpoint as open_checkpoint
from rpucluster.checkpoint.pieces import Piece as Piece
from rpucluster.checkpoint.pieces import Place as Place
from rpucluster.checkpoint.pieces import WrittenFile as WrittenFile
from rpucluster.checkpoint.pieces import fill as fill
from rpucluster.checkpoint.pieces import write_pieces as write_pieces
