"""The operations: check the arguments, choose an implementation, call it.

Registered with ``torch.library`` as ``torch.ops.fastlangevin.*``, so that ``torch.compile(fullgraph=True)`` and CUDA
graphs take them whole.
"""

from fastlangevin.ops.add_elu import add_elu
from fastlangevin.ops.dsm import dsm
from fastlangevin.ops.group_norm import group_norm
from fastlangevin.ops.instance_norm import add_instance_norm, instance_norm
from fastlangevin.ops.mixture import mixture_score
from fastlangevin.ops.mlp_chain import mlp_chain_
from fastlangevin.ops.move import move
from fastlangevin.ops.perturb import perturb
from fastlangevin.ops.random import rand, randn
from fastlangevin.ops.step import NO_FAULT, step, step_
from fastlangevin.ops.update import StepOptions

__all__ = [
    "NO_FAULT",
    "StepOptions",
    "add_elu",
    "add_instance_norm",
    "dsm",
    "group_norm",
    "instance_norm",
    "mixture_score",
    "mlp_chain_",
    "move",
    "perturb",
    "rand",
    "randn",
    "step",
    "step_",
]
