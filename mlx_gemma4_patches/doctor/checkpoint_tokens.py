"""Which tokens a checkpoint stops at, suppresses and reserves, and what its processor lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..gemma4.config import text_config, vocabulary_size
from ..gemma4.stop_tokens import added_tokens, token_ids
from .checkpoint_files import JSON_LIMIT, Folder, why

_ENDS_A_TURN, _HANDS_OVER = "<turn|>", "<|tool_response>"
_UNIFIED = ("gemma4_unified", "gemma4_unified_text")
_UNSPOKEN = ("<image|>", "<audio|>")  # what the 12B must not say

# the token that each id of config.json stands for
_PLACES = {
    "image_token_id": "<|image|>",
    "audio_token_id": "<|audio|>",
    "boi_token_id": "<|image>",
    "eoi_token_id": "<image|>",
    "boa_token_id": "<|audio>",
    "eoa_token_id": "<audio|>",
    "eoa_token_index": "<audio|>",
    "bos_token_id": "<bos>",
    "pad_token_id": "<pad>",
}


def look(folder: Folder) -> dict[str, Any]:
    """Stop tokens by source, suppressed and special tokens; remarks go to the folder's."""
    tokens = _added(folder)
    generation = folder.json("generation_config.json")
    vocabulary = vocabulary_size(folder.config)
    stops = _stop_tokens(folder, generation, tokens, vocabulary)
    suppressed = _suppressed(folder, generation, tokens, vocabulary)
    _special(folder, tokens, vocabulary)
    _processor(folder)
    return {"stop_tokens": stops, "suppress_tokens": suppressed}


def _added(folder: Folder) -> dict[str, int]:
    if "tokenizer.json" not in folder.names:
        means = "Hosts cannot turn text into tokens."
        do = "Copy tokenizer.json from the original."
        folder.problem("tokenizer", "there is no tokenizer.json", means, do)
        return {}
    try:
        folder.read("tokenizer.json", JSON_LIMIT)  # no pipe, nothing absurd
        tokens = added_tokens(folder.path / "tokenizer.json")
    except (OSError, ValueError) as error:
        folder.problem("tokenizer", f"tokenizer.json cannot be read: {why(error)}")
        return {}
    if not tokens:
        means = "Markers such as <turn|> are spelt in pieces, and no turn ends."
        folder.problem("tokenizer", "tokenizer.json has no added tokens", means)
    return {name: i for name, i in tokens.items() if isinstance(name, str) and type(i) is int}


def _stop_tokens(
    folder: Folder, generation: Mapping[str, Any], tokens: Mapping[str, int], vocabulary: int
) -> dict[str, Any]:
    config, tokenizer = folder.config, folder.json("tokenizer_config.json")
    inner = text_config(config)
    eos = tokenizer.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    values = {
        "generation_config.json": generation.get("eos_token_id"),
        "config.json": config.get("eos_token_id"),
        "text_config": inner.get("eos_token_id") if inner is not config else None,
        "tokenizer_config.json": tokens.get(eos) if isinstance(eos, str) else None,
    }
    united: dict[int, None] = {}
    for source, value in values.items():
        named = token_ids(folder.path, {source: value}, "stop tokens", tokens, vocabulary)
        united |= dict.fromkeys(named)
    missing = {
        marker: tokens[marker]
        for marker in (_ENDS_A_TURN, _HANDS_OVER)
        if marker in tokens and tokens[marker] not in united
    }
    ids = sorted({*united, *missing.values()})
    if missing and folder.names & {"chat_template.jinja", "chat_template.json"}:
        folder.problem(
            "stop tokens",
            f"{' and '.join(f'{m} ({i})' for m, i in missing.items())} stops nothing: no file "
            "names it",
            "Generation runs past the end of the turn, into text the model makes up.",
            f"Set eos_token_id in generation_config.json to {ids}.",
        )
    wins = next((source for source, value in values.items() if value is not None), None)
    return {**values, "united": list(united), "transformers_takes": wins}


def _suppressed(
    folder: Folder, generation: Mapping[str, Any], tokens: Mapping[str, int], vocabulary: int
) -> list[int]:
    named = generation.get("suppress_tokens")
    ids = token_ids(
        folder.path, {"generation_config.json": named}, "suppressed tokens", tokens, vocabulary
    )
    wanted = [tokens[t] for t in _UNSPOKEN if t in tokens]
    if folder.config.get("model_type") in _UNIFIED and not set(wanted) <= set(ids):
        folder.warn(
            "suppressed tokens",
            f"generation_config.json does not suppress {' and '.join(_UNSPOKEN)}",
            "The 12B says them in the middle of a text now and then.",
            f'Add "suppress_tokens": {sorted(wanted)} to generation_config.json.',
        )
    return ids


def _special(folder: Folder, tokens: Mapping[str, int], vocabulary: int) -> None:
    text = text_config(folder.config)
    for key, token in _PLACES.items():
        said = folder.config.get(key, text.get(key))
        if said is not None and token in tokens and said != tokens[token]:
            folder.problem(
                "special tokens",
                f"config.json: {key} is {said!r:.40}, and {token} is {tokens[token]}",
                "The model looks for another token than the tokenizer gives.",
                "Take config.json and tokenizer.json of the same model.",
            )
    beyond = sorted(name for name, i in tokens.items() if i >= vocabulary)
    if beyond:
        folder.problem(
            "special tokens",
            f"{len(beyond)} added tokens, such as {beyond[0]!r:.40}, are beyond the vocabulary of "
            f"{vocabulary:,}",
            "The embedding table has no rows for them.",
            "Resize the table with the tokenizer, or take the original's tokenizer.",
        )
    rows = [
        t.shape[0]
        for name, t in folder.tensors.items()
        if "embed_tokens.weight" in name and t.shape
    ]
    if rows and rows[0] != vocabulary:
        found = f"the embedding table has {rows[0]:,} rows, and the config says {vocabulary:,}"
        folder.problem("special tokens", found, "The model does not load.")


def _processor(folder: Folder) -> None:
    hears = isinstance(folder.config.get("audio_config"), dict)
    sees = isinstance(folder.config.get("vision_config"), dict)
    processor = folder.json("processor_config.json")
    if (hears or sees) and "processor_config.json" not in folder.names:
        if "preprocessor_config.json" not in folder.names:
            folder.warn(
                "processor",
                "there is no processor_config.json",
                "mlx-vlm cannot prepare images and sounds.",
                "Copy processor_config.json from the original.",
            )
    elif hears and processor and not processor.get("feature_extractor"):
        folder.warn(
            "processor",
            "processor_config.json has no feature_extractor",
            "The model hears, and nothing turns a recording into what it hears.",
            "Copy processor_config.json from the original.",
        )
