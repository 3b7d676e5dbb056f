"""Models of Hugging Face's transformers that read texts, such as BERT, RoBERTa and DistilBERT, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcli.config.ranges import Share
from sslcli.encoders.text import TextEncoder, by_length, mean_of, readable, visible
from sslcli.errors import UserError, described
from sslcli.types import Encoded, Spec, View

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


class HuggingFace(TextEncoder):
    """An encoder of the library transformers, built as the ``config.json`` of its folder says.

    Nothing is fetched, and no code from the folder runs. ``encoder.weights`` is that folder unless you give another:
    its ``model.safetensors`` is what a run starts from. The folder has to stay where it is, as evaluation builds the
    model by its config again. Its tokenizer is ``dataset.tokenizer=PATH``.

    Args:
        spec: the dataset's columns.
        path: the folder.
        dropout: share of numbers that training drops, in all layers; null takes the model's own.
        pool: ``mean`` of all tokens that are no padding, or ``cls``, the first token. Training and evaluation pool in
            the same way.

    Raises:
        UserError: the library is not installed, or the folder cannot be read.
        ValueError: no path is given, or the tokenizer of the texts is not the model's.
    """

    def __init__(
        self, spec: Spec, *, path: str | None, dropout: Share | None = None, pool: Literal["mean", "cls"] = "mean"
    ) -> None:
        super().__init__(spec)
        if not path:
            raise ValueError("give encoder.path, a folder that transformers wrote")
        config = _config(Path(path).expanduser())
        for name in _DROPOUTS:
            if dropout is not None and hasattr(config, name):
                setattr(config, name, dropout)
        for name, field in self.texts.items():
            if field.vocab > config.vocab_size or config.pad_token_id not in (None, field.pad):
                raise ValueError(
                    f"the model has {config.vocab_size:,} ids and pads with {config.pad_token_id}, and the column "
                    f"'{name}' has {field.vocab:,} and {field.pad}; set dataset.tokenizer={path}"
                )
        most = getattr(config, "max_position_embeddings", self.max_length)
        if self.max_length > most:
            raise ValueError(
                f"the model reads {most} tokens, and texts have {self.max_length}; set dataset.length={most}"
            )
        self.model: Any = _built(config)
        self.pool = pool
        self.dim = self.token_dim = int(config.hidden_size)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of embeddings, which an objective that predicts ids uses as its output layer."""
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def recompute_blocks(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        self.check_length(view.x.shape[1])
        hidden = self.hidden(view, mask)
        tokens = by_length(self._tokens, self.ids(view, hidden), view.valid)
        pooled = tokens[:, 0].float() if self.pool == "cls" else mean_of(tokens, visible(view, hidden))
        return Encoded(tokens, pooled, view.valid)

    def _tokens(self, ids: Tensor, valid: Tensor | None) -> Tensor:
        read = torch.ones_like(ids) if valid is None else readable(valid).long()
        tokens: Tensor = self.model(input_ids=ids, attention_mask=read).last_hidden_state
        return tokens


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError("encoder=hf needs the library transformers: pip install 'sslcli[text]'") from None
    return transformers


def _config(folder: Path) -> Any:
    library = _library()
    if not (folder / "config.json").is_file():
        raise UserError(f"encoder.path: there is no config.json in {folder}.")
    try:
        return library.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"encoder.path: transformers cannot read {folder} ({described(error)}).") from None


def _built(settings: Any) -> Any:
    """Return the model at its random initialisation, without the layer on the first token that a few of them have."""
    try:
        try:
            return _library().AutoModel.from_config(settings, trust_remote_code=False, add_pooling_layer=False)
        except TypeError:  # a model without such a layer
            return _library().AutoModel.from_config(settings, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"encoder.path: transformers cannot build this model ({described(error)}).") from None
