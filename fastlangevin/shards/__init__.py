"""Sharded, resumable sampling: any number of processes and machines fill one folder with the same samples.

A run folder holds ``run.json``, the record of what the run is, and one file for each shard of consecutive sample ids.
Whoever comes claims a shard that is missing, draws it batch by batch and writes it; no process talks to another, and a
process's rank never enters the noise. So the samples have the same bits for any number of processes, after any kill
and for any batch size, as far as the network gives a sample the same score in any batch. Where it does not (many
convolutions and matrix products do not), they have the same bits for the same shard size and batch size.
"""

from fastlangevin.shards.collecting import collect, digest, iterate
from fastlangevin.shards.digests import digest_of, network_digest
from fastlangevin.shards.folder import RunFolder
from fastlangevin.shards.record import RecordOptions
from fastlangevin.shards.working import Outcome, sample

__all__ = [
    "Outcome",
    "RecordOptions",
    "RunFolder",
    "collect",
    "digest",
    "digest_of",
    "iterate",
    "network_digest",
    "sample",
]
