"""A folder for ``SentenceTransformer(PATH)``, with weights that ``transformers.BertModel`` loads and the tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

import sslcli
from sslcli.data.text.vocabulary import NAME, Vocabulary
from sslcli.encoders.text_transformer import TextTransformer
from sslcli.errors import UserError
from sslcli.export.base import TOLERANCE, Checked, Different, Format, Lines, Source, needed, normalising, same_features

_CONFIG = "config_sentence_transformers.json"
_WEIGHTS = "model.safetensors"
# The paths of 2.x to 5.x, which 6.x maps to its own.
_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"))
_TEXTS = 10  # that the check encodes


class SentenceTransformers(Format):
    """An encoder ``text_transformer`` with its tokenizer and pooling, for the library sentence-transformers."""

    suffix = ""
    is_folder = True

    def write(self, source: Source, path: Path) -> None:
        encoder, vocabulary = _bert(source), _vocabulary(source)
        needed("sentence_transformers", extra="sentence_transformers", by="format=sentence_transformers")
        (path / "1_Pooling").mkdir(parents=True)
        (path / NAME).write_bytes(source.model.fitted.files[NAME])
        tensors = {name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}
        (path / _WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        modules = [
            {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
            for i, (folder, kind) in enumerate(_MODULES)
        ]
        _json(path / "modules.json", modules)
        _json(path / _CONFIG, {"__version__": {"sslcli": sslcli.__version__}, "similarity_fn_name": "cosine"})
        sizes = {"max_seq_length": encoder.max_length, "do_lower_case": False}
        _json(path / "sentence_bert_config.json", {**sizes, "model_args": {"add_pooling_layer": False}})
        pooling = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens")}
        pooling["pooling_mode_cls_token" if encoder.pool == "cls" else "pooling_mode_mean_tokens"] = True
        _json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.dim, **pooling})
        _json(path / "config.json", _bert_config(encoder, vocabulary))
        _json(path / "tokenizer_config.json", _tokenizer_config(encoder, vocabulary))

    def replaces(self, path: Path) -> bool:
        if not path.exists():
            return False
        config = path / _CONFIG
        if not config.is_file() or not re.search(r'"sslcli"', config.read_text(errors="replace")):
            raise UserError(f"output: {path} is not of this tool and would be lost. Choose another name, or remove it.")
        return True

    def lines(self, source: Source, path: Path) -> Lines:
        return Lines(
            [
                "from sentence_transformers import SentenceTransformer",
                f'model = SentenceTransformer({str(path)!r}, device="cpu")',
            ],
            [
                '# of texts: features = model.encode(["a text", "another"])',
                *normalising(source.field)[:-1],
                f"read = {{'input_ids': batch.long(), 'attention_mask': (batch != {source.field.pad}).long()}}",
                "features = model(read)['sentence_embedding']",
            ],
        )

    def check(self, source: Source, path: Path) -> Checked:
        written, ours = load_file(path / _WEIGHTS), source.model.encoder.state_dict()
        equal = [name for name in ours if name in written and torch.equal(written[name], ours[name].cpu())]
        missing, unexpected = sorted(ours.keys() - set(equal)), sorted(written.keys() - ours.keys())
        if missing or unexpected:
            raise Different(f"{path} does not hold what was written: {missing}, {unexpected}")
        lines = self.lines(source, path)
        with _quiet():
            features = same_features(source, lines)
            return Checked(len(equal), [], [], f"{features}; {_same_texts(source, lines)}")


def _bert(source: Source) -> TextTransformer:
    encoder = source.model.encoder
    if not isinstance(encoder, TextTransformer):
        raise UserError(
            f"format=sentence_transformers is for encoder=text_transformer, and this run has "
            f"{source.config.encoder.name}. Use format=onnx, torch_export or safetensors."
        )
    return encoder


def _vocabulary(source: Source) -> Vocabulary:
    content = source.model.fitted.files.get(NAME)
    if content is None:
        raise UserError(f"format=sentence_transformers needs the run's {NAME}, and there is none.")
    return Vocabulary(content)


def _bert_config(encoder: TextTransformer, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the config of ``transformers.BertModel``."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": encoder.num_ids,
        "hidden_size": encoder.dim,
        "num_hidden_layers": len(encoder.encoder.layer),
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": 4 * encoder.dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.dropout,
        "max_position_embeddings": encoder.max_length,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": vocabulary.pad,
        "torch_dtype": "float32",
    }


def _tokenizer_config(encoder: TextTransformer, vocabulary: Vocabulary) -> dict[str, Any]:
    roles = {"pad_token": vocabulary.pad, "mask_token": vocabulary.mask, "unk_token": vocabulary.unknown}
    names = {role: vocabulary.tokenizer.id_to_token(number) for role, number in roles.items() if number is not None}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": encoder.max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **names,
    }


def _same_texts(source: Source, lines: Lines) -> str:
    """Encode texts by both, a long one among them; report the largest difference.

    Raises:
        Different: it is above the tolerance.
    """
    column, vocabulary = source.field, _vocabulary(source)
    generator = torch.Generator().manual_seed(0)
    lengths = [*range(1, _TEXTS), 2 * column.shape[0]]  # the last is cut
    texts = [vocabulary.decode(torch.randint(column.vocab, (1, n), generator=generator))[0] for n in lengths]
    scope: dict[str, Any] = {}
    exec("\n".join(lines.load), scope)
    theirs = torch.as_tensor(scope["model"].encode(texts, show_progress_bar=False))
    with torch.no_grad():
        ours = source.model(texts)
    worst = float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1e-12))
    if not worst <= TOLERANCE:
        raise Different(f"features of texts differ by {worst:.1e}, relative to the largest")
    return f"so are those of {len(texts)} texts, {worst:.0e}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no bars of the library's for what takes no time."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _json(path: Path, content: Any) -> None:
    path.write_text(f"{json.dumps(content, indent=2)}\n")
