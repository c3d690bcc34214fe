"""NSP² and PGP on L2P: a pool of deep prompts whose updates are projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from perdure.errors import ConfigError
from perdure.methods.base import METHODS
from perdure.methods.l2p import L2P, L2PConfig
from perdure.methods.nsp2 import NSP2Method, NSP2Options
from perdure.methods.pgp import PGPMethod, PGPOptions
from perdure.types import Traits

FIRST_THREE = (0, 1, 2)


@dataclass(frozen=True)
class DeepL2PConfig(L2PConfig):
    """Options of L2P with prompts inside blocks, where conditions on keys and values hold."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: no block.
        """
        super().__post_init__()
        if not self.prompt_blocks:
            raise ConfigError(
                "prompt_blocks=[]: prompts that join the input travel through all blocks, and no "
                "condition holds for them. Name at least one block."
            )


@dataclass(frozen=True)
class L2PNSP2Config(NSP2Options, DeepL2PConfig):
    """Options of L2P-NSP²."""

    prompt_length: int = 5
    prompt_blocks: tuple[int, ...] = FIRST_THREE


@dataclass(frozen=True)
class L2PPGPConfig(PGPOptions, DeepL2PConfig):
    """Options of L2P-PGP."""

    prompt_length: int = 5
    prompt_blocks: tuple[int, ...] = FIRST_THREE


@METHODS.register("l2p_nsp2")
class L2PNSP2(NSP2Method, L2P):
    """L2P with deep prompts under NSP²'s conditions (Lu et al., NeurIPS 2024, Table 5)."""

    traits: ClassVar[Traits] = Traits(
        paper="Lu et al., NeurIPS 2024 (L2P-NSP²); Wang et al., CVPR 2022 (L2P)",
        summary="a pool of deep prompts, updates projected into the null space of old features",
        needs_query=True,
        projects_updates=True,
        protects_features=True,
        stores_statistics="per block one D × D Gram and one M × M per pool entry; one D × D of queries",
        selects=True,
    )
    Config = L2PNSP2Config
    config: L2PNSP2Config


@METHODS.register("l2p_pgp")
class L2PPGP(PGPMethod, L2P):
    """L2P with deep prompts under PGP's condition (Qiao et al., ICLR 2024)."""

    traits: ClassVar[Traits] = Traits(
        paper="Qiao et al., ICLR 2024 (PGP); L2P-PGP in Lu et al., NeurIPS 2024",
        summary="a pool of deep prompts, updates orthogonal to old tasks' input tokens",
        needs_query=True,
        projects_updates=True,
        stores_statistics="per block one D × D Gram of old tokens; one D × D of queries",
        selects=True,
    )
    Config = L2PPGPConfig
    config: L2PPGPConfig
