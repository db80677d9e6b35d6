"""What a fresh run says, and what a server's model would have said in place of its script."""

from __future__ import annotations

import importlib.util
from typing import Any

import mlx.core as mx

from tests.hosts import counted

_ROUNDING = 2e-3  # in logits

# of each step of a model: the ids it was given, those it was made to say, and its own with logits
Step = tuple[int, int, list]


def given_back(steps: list[Step], script: list[int]) -> int:
    """How many tokens of the script a model was given, behind the prompt."""
    at = 0
    for given, _, _ in steps:
        if at < len(script) and given == script[at]:
            at += 1
    return at


def own(steps: list[Step], script: list[int]) -> list:
    """What a model would have said in place of the script: [(id, logit), ...]."""
    longest: list = []
    for start in range(len(steps)):
        found: list = []
        for given, forced, mine in steps[start : start + len(script)]:
            at = len(found)
            if forced != script[at] or (at and given != script[at - 1]):
                break
            found.append(mine)
        longest = max(longest, found, key=len)
    return longest


def differences(mine: list, reference: list) -> list[str]:
    """How what a model would have said differs from a fresh run, a line each."""
    if len(mine) < len(reference):
        return [f"{len(mine)} of {len(reference)} tokens of the answer are known"]
    return [
        f"token {i}: {said} instead of {wanted}"
        for i, (said, wanted) in enumerate(zip(mine, reference, strict=False))
        if said[0] != wanted[0] or abs(said[1] - wanted[1]) > _ROUNDING
    ]


class Reference:
    """The model of one shape, which reads each prompt once.

    What prompts have in common is not read again: a cache that has every row of every layer can be
    rewound. ``reads_all`` says the same without a cache.
    """

    def __init__(self, shape: str):
        self._model, self._caches = _model(shape)
        self._read: list[int] = []

    def says(self, prompt: list[int], script: list[int]) -> list[tuple[int, float]]:
        """What the model says in place of the script: [(id, logit), ...]."""
        ids = prompt + script[:-1]
        known = min(common(ids, self._read), len(prompt) - 1)
        for cache in self._caches:
            cache.trim(cache.offset - known)
        logits = self._model(mx.array([ids[known:]]), self._caches)[0, len(prompt) - 1 - known :]
        self._read = ids
        return best(logits)

    def reads_all(self, prompt: list[int], script: list[int]) -> list[tuple[int, float]]:
        """The same, of the whole prompt and without a cache."""
        return best(self._model(mx.array([prompt + script[:-1]]))[0, len(prompt) - 1 :])

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """What the model says of its own, but no marker."""
        made: list[int] = []
        known = min(common(prompt, self._read), len(prompt) - 1)
        for cache in self._caches:
            cache.trim(cache.offset - known)
        new = prompt[known:]
        for _ in range(count):
            logits = self._model(mx.array([new]), self._caches)[0, -1]
            new = [mx.argmax(mx.where(mx.array(counted.MUTE), -1e4, logits)).item()]
            made += new
        self._read = prompt + made[:-1]
        return made


def common(left: list[int], right: list[int]) -> int:
    """How many first tokens two lists share."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def best(logits: mx.array) -> list[tuple[int, float]]:
    """The likeliest id of each row of logits (L, vocabulary), and its logit."""
    likeliest, top = mx.argmax(logits, -1).tolist(), mx.max(logits, -1).tolist()
    return list(zip(likeliest, top, strict=True))


def _model(shape: str) -> tuple[Any, list[Any]]:
    """The model of one shape, of mlx-lm or of mlx-vlm, and caches that keep all rows."""
    if importlib.util.find_spec("mlx_lm.models.gemma4"):
        from mlx_lm.models.cache import KVCache

        from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model

        model = text_model(shape)
        return model, [KVCache() for _ in model.make_cache()]
    from mlx_vlm.models.cache import KVCache

    from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model as multimodal_model

    language = multimodal_model(shape).language_model
    caches = [KVCache() for _ in language.make_cache()]
    return lambda ids, cache=None: language(ids, cache=cache).logits, caches
