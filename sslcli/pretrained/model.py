"""What ``sslcli.load`` returns: a trained encoder that takes raw samples."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.pretrained.samples import as_column
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Encoded, Spec
from sslcli.views.base import Views


class Pretrained(nn.Module):
    """A trained encoder with its preprocessing, in eval mode.

    ``model(x)`` gives features (B, dim), and ``model.encode(x)`` the tokens, too. The samples ``x`` are pictures, rows,
    texts or a tensor:

    - A picture is a PIL image of any size and mode, or a NumPy array (H, W) or (H, W, C), uint8 or floats in [0, 1].
      Several are a list, of any sizes, or one array (B, H, W, C). One is a batch of one. Grey is repeated for an
      encoder of red, green and blue, colours become grey for one of grey, and alpha is laid on white. Each is turned
      upright, cut to its largest centred square and resized, as ``dataset=images`` reads it.
    - A tensor (B, C, H, W) is uint8, or floats in [0, 1], of any size, with the channels of the run's data. It is
      resized as a whole, without a cut. A column of ids or numbers is as the dataset has it.
    - A row of a table is a dict, or a list or array of its columns in their order; several are a list of these, or one
      array (B, K). Each is standardised, and its categories numbered, as ``dataset=vectors`` reads a row of its file.
    - A text, or a list of texts, is read by the run's tokenizer and cut at its ``dataset.length``.
    - Of a recommender, a sample is the id of a user as the run's data have it, or of an item with ``field="item"``; or
      a history, the list of the ids of its items, oldest first.

    Where the run's data are no pixels (``dataset.channels``, floats), numbers are taken as they are.

    Args:
        encoder: the encoder.
        views: the run's views, whose ``evaluation_view`` resizes and normalises.
        spec: the columns of the run's data, as the dataset has them.
        fitted: what was fitted on the run's data, such as a tokenizer.
    """

    def __init__(self, encoder: Encoder, views: Views, spec: Spec, fitted: Fitted | None = None) -> None:
        super().__init__()
        self.fitted = fitted or Fitted(complete=True)
        self.encoder, self.views, self.spec = encoder, views, spec
        self.dim = encoder.dim
        self.eval()

    def forward(self, x: Any, field: str | None = None) -> Tensor:
        """Compute features (B, dim) of samples, which the class describes.

        Args:
            x: the samples.
            field: the column that they are of; None is the first that the run's views read.

        Raises:
            UserError: the pictures are not of the encoder's kind; the run has no such column.
        """
        return self._encoded(x, field).pooled

    def encode(self, x: Any, field: str | None = None) -> Encoded:
        """Compute tokens (B, T, token_dim), for images from left to right and from top to bottom, and features."""
        encoded = self._encoded(x, field)
        return Encoded(encoded.tokens, encoded.pooled, encoded.valid)  # some encoders look tokens up when asked

    def _encoded(self, x: Any, field: str | None) -> Encoded:
        name = field or self.views.field
        if not isinstance(x, Tensor):
            x = as_column(x, name, self.spec[name], self.fitted).to(next(self.encoder.parameters()).device)
        encoded: Encoded = self.encoder(self.views.evaluation_view({name: x}, name))
        return encoded
