"""The operations: check the arguments, choose an implementation, call it.

Registered with ``torch.library`` as ``torch.ops.fastlangevin.*``, so that ``torch.compile(fullgraph=True)`` and CUDA
graphs take them whole.
"""

from fastlangevin.ops.dsm import dsm
from fastlangevin.ops.group_norm import group_norm
from fastlangevin.ops.norm import instance_norm
from fastlangevin.ops.perturb import perturb
from fastlangevin.ops.random import rand, randn
from fastlangevin.ops.step import step, step_

__all__ = ["dsm", "group_norm", "instance_norm", "perturb", "rand", "randn", "step", "step_"]
