"""Trains a tokenizer of the library ``tokenizers`` on texts: the same texts in any order make the same file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sslcli.data.text.vocabulary import library

VOCAB_SIZE = 8000  # of a tokenizer for which no size is given
_WORDPIECE = {"pad": "[PAD]", "unknown": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}  # as BERT
_BPE = {"begin": "<s>", "pad": "<pad>", "end": "</s>", "unknown": "<unk>", "mask": "<mask>"}  # as RoBERTa
_START = "\u2581"  # marks the begin of a word while pieces of words are counted
_ALPHABET = 8  # characters are at most one in this many tokens, or 256
_LONG = re.compile(r"\S{100}")  # counting pairs in a word takes the square of its length


def trained(kind: str, texts: Iterator[str], vocab_size: int) -> bytes:
    """Train a tokenizer; return its ``tokenizer.json``.

    Args:
        kind: ``wordpiece``, which reads lower-case words as BERT's; or ``bpe``, which reads bytes as RoBERTa's, so
            that no token is unknown.
        texts: the texts, which are read once.
        vocab_size: largest number of tokens, special ones included.
    """
    lib = library()
    names = _WORDPIECE if kind == "wordpiece" else _BPE
    texts = (_LONG.sub(r"\g<0> ", text) for text in texts)
    tokenizer = (_wordpiece if kind == "wordpiece" else _bpe)(lib, texts, vocab_size)
    tokenizer.add_special_tokens(list(names.values()))
    ends = [(names[role], tokenizer.token_to_id(names[role])) for role in ("begin", "end")]
    tokenizer.post_processor = lib.processors.TemplateProcessing(
        single=f"{names['begin']} $A {names['end']}", special_tokens=ends
    )
    content: str = tokenizer.to_str(pretty=True)
    return content.encode()


def _wordpiece(lib: Any, texts: Iterator[str], vocab_size: int) -> Any:
    """Return a tokenizer that splits a word into the longest known pieces (Schuster and Nakajima 2012; BERT).

    The library's own trainer numbers the pieces that go on with a word in the order of a hash table, which is another
    one in every process, and breaks ties by these numbers. So pieces are merged with a mark before each word instead,
    and the mark is taken off again: a piece without it goes on with a word (``##``).
    """
    counting = lib.Tokenizer(lib.models.BPE())
    counting.normalizer = lib.normalizers.BertNormalizer(lowercase=True)
    counting.pre_tokenizer = lib.pre_tokenizers.Sequence(
        [lib.pre_tokenizers.BertPreTokenizer(), lib.pre_tokenizers.Metaspace(_START, "always", False)]
    )
    counting.train_from_iterator(
        texts,
        lib.trainers.BpeTrainer(
            vocab_size=vocab_size, limit_alphabet=max(256, vocab_size // _ALPHABET), show_progress=False
        ),
    )
    vocabulary = counting.get_vocab()
    pieces = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if piece != _START]
    characters = [piece for piece in pieces if len(piece) == 1]
    words = dict.fromkeys([*_WORDPIECE.values(), *characters, *(f"##{character}" for character in characters)])
    words |= dict.fromkeys(piece[1:] if piece[0] == _START else f"##{piece}" for piece in pieces)
    ids = {word: number for number, word in enumerate(list(words)[:vocab_size])}
    tokenizer = lib.Tokenizer(lib.models.WordPiece(ids, unk_token=_WORDPIECE["unknown"]))
    tokenizer.normalizer = counting.normalizer
    tokenizer.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = lib.decoders.WordPiece()
    return tokenizer


def _bpe(lib: Any, texts: Iterator[str], vocab_size: int) -> Any:
    """Return a tokenizer that merges frequent pairs of bytes (Sennrich et al. 2016; Radford et al. 2019)."""
    tokenizer = lib.Tokenizer(lib.models.BPE())
    tokenizer.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = lib.decoders.ByteLevel()
    trainer = lib.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_BPE.values()),
        initial_alphabet=lib.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
