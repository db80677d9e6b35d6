"""Pictures and sounds for mlx-lm's Gemma 4: mlx-vlm's towers make them into soft tokens.

    model, tokenizer = mlx_lm.load(folder)
    ids, embedded = media.prepare(model, text, ["picture.png"])  # with <|image|> in the text
    mlx_lm.generate.generate_step(ids, model, input_embeddings=embedded)

    caches = media.read(model, ids, embedded)  # for a batch: all but the last token is read
    generator.insert([ids[-1:].tolist()], caches=[caches], all_tokens=[ids[:-1].tolist()])

``generate_step`` takes what is embedded where the patch ``mlx_lm.images`` is on.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ...gemma4 import vision_mask
from ...gemma4.embedded import Embedded, embed, runs
from ...gemma4.placeholders import Placeholders
from .prefill import Reader, prefill

IMAGE = "<|image|>"  # in texts: here is a picture

_FOLDER = "_gemma4_folder"
_TOWERS = "_gemma4_towers"
_OF_TOWERS = ("embed_vision.", "vision_embedder.", "embed_audio.")
_OF_SOUND = ("input_features", "input_features_mask", "audio_features", "audio_mask")
_USER_TURN = "<|turn>user\n"


class MediaError(ValueError):
    """Pictures or sounds cannot be taken; the message says why and what helps."""


def remember(model: Any, folder: Path) -> None:
    """Note where the checkpoint of ``model`` is."""
    setattr(model, _FOLDER, Path(folder))


def folder_of(model: Any) -> Path | None:
    """Where the checkpoint of ``model`` is, if it is known."""
    return getattr(model, _FOLDER, None)


def obstacle(model: Any) -> str | None:
    """Why ``model`` cannot be shown anything, or None."""
    folder = folder_of(model)
    if folder is None:
        return "its folder is not known: load it with mlx_lm.load, with the patches on"
    if find_spec("mlx_vlm") is None:
        return "mlx-vlm has the towers for it: pip install mlx-vlm"
    names = (n for file in folder.glob("model*.safetensors") for n in mx.load(str(file)))
    if not any(n.removeprefix("model.").startswith(_OF_TOWERS) for n in names):
        return "the checkpoint has no weights for it, since mlx_lm.convert leaves them out"
    return None


def prepare(
    model: Any, text: str, images: Sequence[Any] = (), audio: Sequence[Any] = ()
) -> tuple[mx.array, Embedded]:
    """A prompt with media, ready for ``generate_step``.

    Args:
        model: a Gemma 4 of mlx-lm.
        text: as the chat template renders it, with ``<|image|>`` and ``<|audio|>`` for the media.
        images: files, URLs or PIL images, in their order.
        audio: files of sounds, in their order.

    Returns token ids, int (L,), and embeddings of as many rows.

    Raises:
        MediaError: the model cannot be shown anything, or not this.
    """
    towers = Towers.of(model)
    utils = importlib.import_module("mlx_vlm.utils")
    for kind, given in (("image", images), ("audio", audio)):
        if text.count(f"<|{kind}|>") != len(given):
            found = text.count(f"<|{kind}|>")
            raise MediaError(f"the text has {found} <|{kind}|> for {len(given)} given")
    try:
        made = utils.prepare_inputs(
            towers.processor,
            images=list(images) or None,
            audio=list(audio) or None,
            prompts=text,
        )
    except Exception as error:  # of any kind: files, decoders, networks
        raise MediaError(f"a picture or sound cannot be read: {error}") from error
    ids = mx.array(made["input_ids"])[0]
    return ids, towers.embedded(model, ids, made)


def read(model: Any, ids: mx.array, embedded: Embedded, step: int = 2048) -> list[Any]:
    """Caches of a prompt that the model has read but for its last token."""
    from mlx_lm.models.cache import make_prompt_cache

    caches = make_prompt_cache(model)
    reader = Reader(model, slice(None), embedded)
    prefill([reader], ids, caches, embedded.stops(step), {}, lambda done, total: None)
    return caches


class Processor:
    """What ``mlx_lm.processors`` wants of a model that takes images."""

    image_token = IMAGE

    def __init__(self, model: Any):
        self._model = model

    @classmethod
    def of(cls, model: Any) -> Processor | None:
        """None, and a line in the log, for a model that cannot be shown anything."""
        if (why := obstacle(model)) is not None:
            logging.getLogger(__name__).warning("Gemma 4 answers to text alone: %s", why)
            return None
        return cls(model)

    def __call__(
        self, text: str, *, images: Sequence[np.ndarray]
    ) -> tuple[str, list[dict[str, Any]]]:
        """The text with as many placeholders as soft tokens, and what ``embed_inputs`` wants.

        Where a text has no ``<|image|>`` at all, the images begin the last turn of the user.
        """
        processor = Towers.of(self._model).processor
        if IMAGE not in text:
            at = text.rfind(_USER_TURN) + len(_USER_TURN) if _USER_TURN in text else 0
            text = text[:at] + IMAGE * len(images) + text[at:]
        before, *parts = text.split(IMAGE)
        if len(parts) != len(images):
            raise MediaError(f"the text has {len(parts)} {IMAGE} for {len(images)} images")
        made, pixels = [before], []
        for image, part in zip(images, parts, strict=True):
            data, (count,) = processor.image_processor([_of_any_shape(image)])
            made += [processor.boi_token, IMAGE * count, processor.eoi_token, part]
            arrays = ("pixel_values", "image_position_ids")
            pixels.append({name: mx.array(data[name]) for name in arrays if name in data})
        return "".join(made), pixels


class Towers:
    """mlx-vlm's model of a checkpoint without its text model, and its processor."""

    def __init__(self, folder: Path):
        utils = importlib.import_module("mlx_vlm.utils")
        self._model, self.processor = utils.load(str(folder), lazy=True)
        config = self._model.config
        self._placeholders = Placeholders.of(config)
        self._is_whole = vision_mask.applies(config.text_config)
        self._model.language_model = _no_text_model(config.text_config.hidden_size)
        mx.eval(self._model.parameters())  # those of the text model are never read

    @classmethod
    def of(cls, model: Any) -> Towers:
        """Those of a model of mlx-lm, loaded once.

        Raises MediaError: see ``obstacle``; or the towers do not load.
        """
        towers = vars(model).get(_TOWERS)
        if towers is None:
            if (why := obstacle(model)) is not None:
                raise MediaError(f"this model takes no pictures or sounds: {why}")
            try:
                towers = cls(folder_of(model))
            except Exception as error:  # of mlx-vlm, whatever its release
                raise MediaError(f"mlx-vlm does not load its part of it: {error}") from error
            object.__setattr__(model, _TOWERS, towers)  # no parameters of the text model
        return towers

    @property
    def nbytes(self) -> int:
        """What the towers take."""
        return sum(value.nbytes for _, value in tree_flatten(self._model.parameters()))

    def embedded(self, model: Any, ids: mx.array, inputs: dict[str, Any]) -> Embedded:
        """ids (L,) with the media among ``inputs``, mlx-vlm's."""
        image, audio = self._placeholders.image, self._placeholders.audio
        pictures = {
            name: value
            for name, value in inputs.items()
            if name in ("pixel_values", "image_position_ids") and value is not None
        }
        sounds = {name: inputs[name] for name in _OF_SOUND if inputs.get(name) is not None}
        soft = {token: [] for token in (image, audio) if token is not None}
        if pictures:
            soft[image] = [self._rows(ids, image, pictures)]
        if sounds:
            soft[audio] = [self._rows(ids, audio, sounds)]
        return self._embed(model, ids, soft)

    def with_pictures(
        self, model: Any, ids: mx.array, pixels: Sequence[dict[str, Any]]
    ) -> Embedded:
        """ids (L,) with pictures as ``Processor`` makes them, one after the other."""
        image = self._placeholders.image
        places = runs(ids, image)
        if len(places) != len(pixels):
            raise MediaError(f"the prompt has room for {len(places)} of {len(pixels)} pictures")
        soft = []
        for (begin, end), of_one in zip(places, pixels, strict=True):
            soft.append(self._rows(ids[begin:end], image, of_one))
            mx.eval(soft)  # one picture in the tower at a time
        return self._embed(model, ids, {image: soft})

    def _rows(self, ids: mx.array, token: int, inputs: dict[str, Any]) -> mx.array:
        """(soft tokens, hidden) for the places of a placeholder in ids (L,)."""
        here = mx.full((1, (ids == token).sum().item()), token)
        return self._model.get_input_embeddings(input_ids=here, **inputs).inputs_embeds[0]

    def _embed(self, model: Any, ids: mx.array, soft: dict[int, list[mx.array]]) -> Embedded:
        table = model.language_model.model.embed_tokens
        return embed(ids, table, soft, self._is_whole, self._placeholders)


def _no_text_model(hidden: int) -> Any:
    """What mlx-vlm puts soft tokens into: rows of zeros."""
    model = SimpleNamespace(
        embed_tokens=lambda ids: mx.zeros((*ids.shape, hidden)),
        embed_scale=1.0,
        hidden_size_per_layer_input=0,
        config=None,
    )
    return SimpleNamespace(model=model)


def _of_any_shape(image: np.ndarray) -> Any:
    """A picture whose layout nobody has to guess; (H, W, 3) uint8."""
    from PIL import Image

    return Image.fromarray(image)
