"""NSP² and PGP on L2P: a pool of deep prompts whose updates are projected."""

from __future__ import annotations

from perdure.methods.catalog import METHODS
from perdure.methods.l2p import L2P
from perdure.methods.nsp2 import NSP2Guard
from perdure.methods.options import L2PNSP2Config, L2PPGPConfig
from perdure.methods.pgp import PGPGuard
from perdure.types import BackboneSpec, Generators


@METHODS.register("l2p_nsp2")
class L2PNSP2(L2P):
    """L2P with deep prompts under NSP²'s conditions (Lu et al., NeurIPS 2024, Table 5)."""

    def __init__(self, spec: BackboneSpec, config: L2PNSP2Config, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.guard = NSP2Guard(spec, config, self.prompts, self.keys)


@METHODS.register("l2p_pgp")
class L2PPGP(L2P):
    """L2P with deep prompts under PGP's condition (Qiao et al., ICLR 2024)."""

    def __init__(self, spec: BackboneSpec, config: L2PPGPConfig, generator: Generators) -> None:
        super().__init__(spec, config, generator)
        self.guard = PGPGuard(spec, config, self.prompts, self.keys)
