"""Class names of ImageNet, by synset."""

from __future__ import annotations

from functools import cache


def words(synset: str) -> str:
    """Return the words for a synset of ImageNet-1k, the most usual one first.

    Anything else is returned as it is.

    Examples:
        >>> words("n02129165"), words("n00000000")
        ('lion, king of beasts, Panthera leo', 'n00000000')
    """
    return _descriptions().get(synset, synset)


@cache
def _descriptions() -> dict[str, str]:
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {synset: info.label_name_to_description(synset) for synset in info.label_names()}
