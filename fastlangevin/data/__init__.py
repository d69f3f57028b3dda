"""Training data: sources, their order, and what is done to a batch before noise is added."""

from fastlangevin.data.augment import Augment, dequantise, expit, flip, logit
from fastlangevin.data.folder import Folder
from fastlangevin.data.handwritten import digits
from fastlangevin.data.loading import loader
from fastlangevin.data.opening import open_source
from fastlangevin.data.order import AddressedBatches, batch_indices
from fastlangevin.data.source import Images, SampleError, Source, as_source
from fastlangevin.data.vision import celeba, cifar10, mnist

__all__ = [
    "AddressedBatches",
    "Augment",
    "Folder",
    "Images",
    "SampleError",
    "Source",
    "as_source",
    "batch_indices",
    "celeba",
    "cifar10",
    "dequantise",
    "digits",
    "expit",
    "flip",
    "loader",
    "logit",
    "mnist",
    "open_source",
]
