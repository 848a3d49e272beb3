"""One file a paper. A new method is one new file and one line in `METHODS`."""

from __future__ import annotations

from training.method import Method
from training.methods.autolink import AutoLink
from training.methods.imm import IMM
from training.methods.keypoint_pyramids import KeypointPyramids
from training.methods.keypointgan import KeypointGAN
from training.methods.limbs import Limbs
from training.methods.npt import Npt
from training.methods.transporter import Transporter

METHODS: dict[str, type[Method]] = {
    "imm": IMM,
    "autolink": AutoLink,
    "npt": Npt,
    "limbs": Limbs,
    "transporter": Transporter,
    "keypoint_pyramids": KeypointPyramids,
    "keypointgan": KeypointGAN,
}
"""Name on the command line to the class, which is built as `Class(Class.Config(…), input_size=(W, H))`."""
