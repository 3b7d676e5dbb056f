"""Masked language modelling: predict words that are hidden from a text (BERT, Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Share
from sslcli.encoders.base import Encoder, Recommends
from sslcli.features import Features
from sslcli.objectives.base import Objective, distinct
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Field, Guesses, Loss, View

LONGEST = 16  # tokens of a word that are hidden together


@dataclass
class Hidden:
    """Which words of a batch of texts are to be predicted, and what the encoder reads instead.

    Each text has the same number of places M, so that no shape depends on the texts; ``weight`` says which count.
    """

    places: Tensor  # (B, M) int64
    weight: Tensor  # (B, M) float32, 1 where the word at that place is predicted, else 0
    view: View  # with other words where words were exchanged
    mask: Tensor  # (B, T) bool, True where the encoder hides the word


class MaskedTokens(Objective):
    """Choose words of each text at random, hide most of them, and predict all of them from the text around.

    Of a text with n words, max(1, round(mask_ratio * n)) are chosen. The encoder sees the mask's id in their places, or
    for ``random_share`` of them another word, and for ``kept_share`` the word itself (appendix A.1 of the paper).
    Padding and special ids are never chosen, so a text without words adds nothing to the loss.

    The output layer is the encoder's table of embeddings, with a bias, behind a linear layer, GELU and LayerNorm. The
    loss is the mean cross-entropy over all chosen words of the whole batch, so that long texts count more.

    The words of a history are its items (BERT4Rec, Sun et al. 2019, arXiv:1904.06690). There the output layer is the
    table of items alone: states are compared with it as they are when items are ranked.

    Args:
        encoder: the encoder to train; its tokens read each other, and ``word_embeddings`` is its table.
        mask_ratio: share of the words that are predicted.
        random_share: share of these that the encoder sees as a random other word.
        kept_share: share of these that the encoder sees as they are.
        whole_words: choose all tokens of a word together, word by word while they are no more than that share; one
            word at least (Whole Word Masking of BERT's code).
        reads: the numbers of the views whose words it predicts; null is the first.

    Raises:
        ValueError: the encoder has no such table or is causal, texts have no id for masks, or a share is out of range.
    """

    words: Tensor  # the ids that stand for words
    continues: Tensor  # (ids,) bool, True where an id goes on with the word before it

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: Share = 0.15,
        random_share: Share = 0.1,
        kept_share: Share = 0.1,
        whole_words: bool = False,
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = distinct((0,) if reads is None else reads)
        table = getattr(encoder, "word_embeddings", None)
        if not isinstance(table, nn.Embedding):
            raise ValueError(
                "masked_tokens predicts words from the words around them, and this encoder has no word_embeddings to "
                "do it; use encoder=text_transformer"
            )
        if not 0 < mask_ratio < 1 or random_share + kept_share > 1:
            raise ValueError("mask_ratio must be between 0 and 1, and random_share + kept_share at most 1")
        self.texts: dict[str, Field] = {
            name: field
            for name, field in encoder.view_spec.items()
            if field.kind == "tokens" and field.mask is not None
        }
        if not self.texts:
            raise ValueError("masked_tokens hides words, and no column has an id for it (Field.mask)")
        if getattr(encoder, "causal", False):
            raise ValueError("masked_tokens predicts items from those on both sides; set encoder.causal=false")
        self._outside = (table,)  # in a tuple it is no parameter of this module: it is the encoder's
        self.mask_ratio, self.random_share, self.kept_share = mask_ratio, random_share, kept_share
        ranks = isinstance(encoder, Recommends)
        self.similarity = "dot" if ranks else "cosine"
        self.first_id: int = getattr(encoder, "first_id", 0)  # of row 0 of the table
        ids = torch.arange(self.first_id, min(field.vocab for field in self.texts.values()))
        every = torch.stack([field.words(ids) for field in self.texts.values()]).all(0)
        self.register_buffer("words", ids[every], persistent=False)
        self.whole_words = whole_words
        continues = encoder.view_spec.facts.get("tokens.continues")
        if whole_words and continues is None:
            raise ValueError("whole_words: these data do not say which tokens go on with a word")
        self.register_buffer("continues", continues if whole_words else None, persistent=False)
        width = encoder.token_dim
        self.num_scores = len(self.words) if ranks else table.num_embeddings  # the rows that are compared
        layers = () if ranks else (nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.transform = nn.Sequential(*layers)
        self.bias = None if ranks else nn.Parameter(torch.zeros(self.num_scores))

    def project(self, features: Features) -> dict[str, Tensor]:
        parts = [self._predicted(features, i) for i in self.reads]
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}

    def masked_pass(self, features: Features, i: int) -> Encoded:
        """Encode view ``i`` with its chosen words hidden or exchanged; every call in a step returns the same."""
        hidden = self.draw(features.views[i], features.randomness, i)
        return features.masked(i, hidden.mask, view=hidden.view)

    def draw(self, view: View, randomness: Randomness, i: int) -> Hidden:
        """Choose the words of view ``i``; what is drawn for a word depends on its sample and its place only."""
        field = self.texts.get(view.field)
        if field is None:
            raise ValueError(f"masked_tokens: view {i} is of '{view.field}', which has no id for masks")
        name, width = f"mask{i}" if i else "mask", view.x.shape[1]
        words = field.words(view.x)
        places, weight = self._chosen(view.x, words, randomness.uniform(name, width))
        chosen = torch.zeros_like(words).scatter(1, places, weight > 0)
        how = randomness.uniform(f"{name}, how", width)
        others = self.words[(randomness.uniform(f"{name}, other words", width) * len(self.words)).long()]
        kept, exchanged = how < self.kept_share, (how >= self.kept_share) & (how < self.kept_share + self.random_share)
        read = View(torch.where(chosen & exchanged, others, view.x), view.field, view.valid)
        return Hidden(places, weight, read, chosen & ~kept & ~exchanged)

    def _chosen(self, ids: Tensor, words: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places (B, M) of the tokens with the smallest ``drawn`` (B, T), and which of them count (B, M)."""
        width = ids.shape[1]
        count = (self.mask_ratio * words.sum(1)).round().clamp(min=1).minimum(words.sum(1))
        most = math.ceil(self.mask_ratio * width)
        if self.whole_words:
            starts = words & ~(self.continues[ids] & F.pad(words, (1, -1)))
            first = torch.where(starts, torch.arange(width, device=count.device), 0).cummax(1).values
            drawn, most = drawn.gather(1, first), max(most, min(LONGEST, width))
            first = torch.where(words, first, -1)
        order = torch.where(words, drawn, 2.0).argsort(dim=1, stable=True)
        places = order[:, :most]
        number = torch.arange(most, device=count.device)
        if self.whole_words:
            number = _ends(first.gather(1, order))[:, :most]
        return places, (number < count[:, None]).float()

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        if i not in self.reads:
            return None
        drawn = self.draw(view, randomness, i)
        return torch.zeros_like(drawn.mask).scatter(1, drawn.places, drawn.weight > 0)

    def guesses(self, features: Features, i: int) -> Guesses | None:
        if i not in self.reads:
            return None
        view = features.views[i]
        hidden = self.draw(view, features.randomness, i)
        tokens = features.masked(i, hidden.mask, view=hidden.view).tokens
        probability, guess = self.logits(tokens).softmax(-1).max(-1)
        chosen = torch.zeros_like(hidden.mask).scatter(1, hidden.places, hidden.weight > 0)
        return Guesses(view.x, chosen, guess + self.first_id, probability)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the scores (..., ids) of every id from ``first_id``, in float32, for the encoder's tokens (..., D)."""
        rows = self.transform(tokens)
        with torch.autocast(rows.device.type, enabled=False):
            return F.linear(rows.float(), self._outside[0].weight[: self.num_scores].float(), self.bias)

    def _predicted(self, features: Features, i: int) -> dict[str, Tensor]:
        """Return of each text the summed cross-entropy (B,), and how many words are chosen, and guessed right."""
        hidden = self.draw(features.views[i], features.randomness, i)
        tokens = features.masked(i, hidden.mask, view=hidden.view).tokens
        at = hidden.places[:, :, None].expand(-1, -1, tokens.shape[2])
        tokens, truth = tokens.gather(1, at), features.views[i].x.gather(1, hidden.places) - self.first_id
        if tokens.device.type == "cpu":  # where counting waits for nothing: most places of short texts do not count
            error, right = torch.zeros_like(hidden.weight), torch.zeros_like(hidden.weight)
            which = hidden.weight.bool()
            error[which], right[which] = self._compared(tokens[which], truth[which])
        else:
            error, right = self._compared(tokens, truth)
        weight = hidden.weight
        return {"error": (error * weight).sum(1), "count": weight.sum(1), "right": (right * weight).sum(1)}

    def _compared(self, tokens: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of tokens (..., D) with the ids ``truth`` (...), and 1 where the guess is right."""
        logits = self.logits(tokens).flatten(0, -2)
        error = F.cross_entropy(logits, truth.flatten(), reduction="none")
        right = logits.detach().argmax(1) == truth.flatten()
        return error.view_as(truth), right.float().view_as(truth)

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        count = outputs["count"].sum().clamp(min=1)
        parts = {"masked_accuracy": outputs["right"].sum() / count}
        return Loss(outputs["error"].sum() / count, parts, self.chance(len(outputs["count"])))

    def chance(self, batch_size: int) -> float:
        return math.log(self.num_scores)


def _ends(word: Tensor) -> Tensor:
    """Return, for tokens (B, T) in the order in which they are chosen, the place in it of the last token of their word.

    Args:
        word: (B, T), the word of each token by a number; tokens of a word follow each other. Those of the first word
            count as first, so that it is always chosen, up to ``LONGEST`` of them.
    """
    place = torch.arange(word.shape[1], device=word.device)
    is_last = F.pad(word[:, 1:] != word[:, :-1], (0, 1), value=True)
    later = torch.where(is_last, place, word.shape[1]).flip(1).cummin(1).values.flip(1)
    return torch.where((word == word[:, :1]) & (place < LONGEST), 0, later)
