"""NSP² and PGP on L2P: a pool of deep prompts whose updates are projected."""

from __future__ import annotations

from perdure.methods.catalog import METHODS
from perdure.methods.l2p import L2P
from perdure.methods.nsp2 import NSP2Method
from perdure.methods.options import L2PNSP2Config, L2PPGPConfig
from perdure.methods.pgp import PGPMethod

FIRST_THREE = (0, 1, 2)


@METHODS.register("l2p_nsp2")
class L2PNSP2(NSP2Method, L2P):
    """L2P with deep prompts under NSP²'s conditions (Lu et al., NeurIPS 2024, Table 5)."""

    config: L2PNSP2Config


@METHODS.register("l2p_pgp")
class L2PPGP(PGPMethod, L2P):
    """L2P with deep prompts under PGP's condition (Qiao et al., ICLR 2024)."""

    config: L2PPGPConfig
