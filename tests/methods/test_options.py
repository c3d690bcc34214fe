"""Options of methods: refused values say what is allowed and what to type."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.engine.config import make_config
from perdure.errors import ConfigError
from perdure.methods import METHODS

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "finetune", "prompt_length": 0}, r"prompt_length=0: it must be 1 or more\."),
    ({"method": "finetune", "temperature": 0.0}, r"temperature=0\.0: it must be above 0\."),
    ({"method": "finetune", "temperature": float("nan")}, r"temperature=nan: it must be above 0\."),
    (
        {"method": "finetune", "lr_after_first": -0.1},
        r"lr_after_first=-0\.1: it must be 0 or more\.",
    ),
    ({"method": "finetune", "lr_after_first": float("nan")}, r"lr_after_first=nan: it must be 0"),
    ({"method": "joint", "prompt_length": 0}, r"prompt_length=0: it must be 1 or more\."),
    ({"method": "nsp2", "temperature": -1.0}, r"temperature=-1\.0: it must be above 0\."),
    ({"method": "nsp2", "eta1": 1.1}, r"eta1=1\.1: it must be 0 or more and at most 1\."),
    ({"method": "nsp2", "eta2": -0.1}, r"eta2=-0\.1: it must be 0 or more and at most 1\."),
    ({"method": "nsp2", "ln_weight": -1.0}, r"ln_weight=-1\.0: it must be 0 or more\."),
    ({"method": "nsp2", "ln_weight": float("nan")}, r"ln_weight=nan: it must be 0 or more\."),
    ({"method": "nsp2", "statistics_batch": 0}, r"statistics_batch=0: it must be 1 or more\."),
    (
        {"method": "nsp2", "prompt_length": 2},
        r"prompt_length=2: .* set prompt_length=3 or eta2=0\.",
    ),
    ({"method": "nsp2", "rank_rule": "papper"}, r"rank_rule='papper': .* Did you mean 'paper'\?"),
    ({"method": "nsp2", "eta3": 1.0}, r"'eta3'.* Did you mean 'eta"),
    ({"method": "pgp", "eta1": -0.1}, r"eta1=-0\.1: it must be 0 or more and at most 1\."),
    ({"method": "pgp", "inputs": "befor"}, r"inputs='befor': .* Did you mean 'before'\?"),
    ({"method": "nsp2", "protect": "none"}, r"protect='none': .* 'null_space'"),
    ({"method": "pgp", "protect": "null_space"}, r"protect='null_space': .* 'gradient_projection'"),
    ({"method": "joint", "protect": "sensitivity"}, r"'protect'"),
    ({"method": "l2p", "protect": "use"}, r"protect='use': .*'none' or 'sensitivity'"),
    (
        {"method": "finetune", "protect_strength": 3.0},
        r"protect_strength=3\.0 has no effect under protect=none\. .* add protect=sensitivity\.",
    ),
    (
        {"method": "iprompt", "protect": "use", "protect_keep": 0.5},
        r"protect_keep=0\.5 has no effect under protect=use",
    ),
    (
        {
            "method": "finetune",
            "protect": "sensitivity",
            "protect_keep": 0.5,
            "protect_strength": 3.0,
        },
        r"protect_strength=3\.0 has no effect under protect=sensitivity with protect_keep=0\.5",
    ),
    (
        {"method": "iprompt", "pool_growth": 2, "pool_limit": 20},
        r"pool_limit=20: a pool of 20 could not grow\. Take more than pool=20",
    ),
    (
        {"method": "iprompt", "pool_growth": 2, "protect": "sensitivity"},
        r"pool_growth=2, protect=sensitivity: .* Choose one of the two\.",
    ),
    ({"method": "iprompt", "pool": 0}, r"pool=0: it must be 1 or more\."),
    (
        {"method": "iprompt", "selection": "topk", "top_k": 21},
        r"top_k=21: it must lie in 1 to 20, the size of the pool\.",
    ),
    ({"method": "iprompt", "softness": 0.0}, r"softness=0\.0: it must be above 0\."),
    ({"method": "iprompt", "key_pull": -1.0}, r"key_pull=-1\.0: it must be 0 or more\."),
    (
        {"method": "iprompt", "target": "cls", "token_weights": "similarity"},
        r"token_weights='similarity' weighs patches by their own match",
    ),
    ({"method": "iprompt", "readout": "cl"}, r"readout='cl': .* Did you mean 'cls'\?"),
    ({"method": "l2p", "top_k": 11}, r"top_k=11: it must lie in 1 to 10, the size of the pool\."),
    ({"method": "l2p", "prompt_length": 0}, r"prompt_length=0: it must be 1 or more\."),
    ({"method": "l2p", "key_pull": -1.0}, r"key_pull=-1\.0: it must be 0 or more\."),
    ({"method": "l2p_nsp2", "eta2": 1.1}, r"eta2=1\.1: it must be 0 or more and at most 1\."),
    ({"method": "l2p_nsp2", "prompt_length": 2}, r"needs at least 3 prompts; set prompt_length=3"),
    ({"method": "l2p_nsp2", "top_k": 0}, r"top_k=0: it must lie in 1 to 10"),
    ({"method": "l2p_pgp", "eta1": 1.1}, r"eta1=1\.1: it must be 0 or more and at most 1\."),
    ({"method": "l2p_pgp", "prompt_blocks": []}, r"Name at least one block\."),
    ({"method": "dualprompt", "expert_length": 0}, r"expert_length=0: it must be 1 or more\."),
    (
        {"method": "dualprompt", "expert_blocks": []},
        r"expert_blocks=\[\]: it must be a list of 1 or",
    ),
    ({"method": "dualprompt", "key_pull": -1.0}, r"key_pull=-1\.0: it must be 0 or more\."),
    (
        {"method": "coda_prompt", "prompt_length": 7},
        r"prompt_length=7: it must be .* a multiple of 2",
    ),
    ({"method": "coda_prompt", "components": 0}, r"components=0: it must be 1 or more\."),
    (
        {"method": "coda_prompt", "prompt_blocks": []},
        r"prompt_blocks=\[\]: it must be a list of 1 or",
    ),
    (
        {"method": "dualprompt", "general_blocks": [], "protect": "sensitivity"},
        r"general_blocks=\[\] leaves it out",
    ),
    ({"method": "coda_prompt", "orthogonality": -1.0}, r"orthogonality=-1\.0: it must be 0 or"),
    ({"method": "ncm", "heads": ["gaussian"]}, r"'ncm' works with heads=\['ncm'\] only"),
    ({"method": "lda", "heads": ["linear"]}, r"'lda' trains nothing, so 'linear' would stay untr"),
]


@pytest.mark.parametrize(("values", "text"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_config(values)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "nsp2", "prompt_length": 2, "eta2": 0.0},
        {"method": "nsp2", "prompt_length": 3, "eta1": 0.0, "eta2": 1.0, "ln_weight": 0.0},
        {"method": "finetune", "lr_after_first": 0.0, "prompt_length": 1},
    ],
)
def test_limits_are_allowed(values: dict[str, Any]) -> None:
    make_config(values)


@pytest.mark.parametrize("name", ["l2p", "dualprompt"])
def test_names_of_before_are_understood(name: str) -> None:
    config = make_config({"method": name, "key_weight": 0.25, "selection": "batch"})
    assert config == make_config({"method": name, "key_pull": 0.25, "vote": "batch"})
    assert {"key_weight", "selection"}.isdisjoint(config.flat())
    with pytest.raises(ConfigError, match="key_weight is called key_pull now, and both are given"):
        make_config({"method": name, "key_weight": 0.25, "key_pull": 0.5})


def test_selection_of_iprompt_keeps_its_name() -> None:
    config = make_config({"method": "iprompt", "key_weight": 0.25, "selection": "soft"}).flat()
    assert (config["key_pull"], config["selection"]) == (0.25, "soft")


@pytest.mark.parametrize("name", list(METHODS))
def test_traits_agree_with_each_other(name: str) -> None:
    traits = METHODS[name].traits
    assert traits.paper
    assert traits.summary
    assert traits.heads
    assert traits.trains or not traits.projects_updates
    assert traits.trains or "linear" not in traits.heads
    assert not (traits.frozen_features and traits.needs_query)
    assert make_config({"method": name}).head_names == traits.heads
