"""A tokenizer of the user's: a ``tokenizer.json``, or a folder with one as transformers writes it."""

from __future__ import annotations

import json
from pathlib import Path

from sslcli.data.regular_files import read_regular
from sslcli.data.text.vocabulary import NAME, Vocabulary
from sslcli.errors import UserError, one_line, suggest


def given_tokenizer(path: str) -> bytes:
    """Return the content of the tokenizer at ``path``.

    Raises:
        UserError: there is none, it has no token for padding, or the folder's model or list of words has another
            vocabulary.
    """
    place = Path(path).expanduser()
    if not place.exists():
        known = suggest(path, ("wordpiece", "bpe")) if "/" not in path and "." not in path else "Give another path."
        raise UserError(f"dataset.tokenizer: there is no {path}. {known}")
    file = place / NAME if place.is_dir() else place
    if not file.is_file():
        raise UserError(
            f"dataset.tokenizer: {place} has no {NAME}. transformers writes one: "
            f"AutoTokenizer.from_pretrained('{one_line(str(place))}').save_pretrained(DIR)"
        )
    content = read_regular(file)
    vocabulary = Vocabulary(content, str(file))
    if place.is_dir():
        _check_words(place / "vocab.txt", vocabulary)
        _check_model(place / "config.json", vocabulary)
    return content


def _check_words(file: Path, vocabulary: Vocabulary) -> None:
    if not file.is_file():
        return
    words = read_regular(file).decode("utf-8", "replace").split("\n")
    words = words[:-1] if words[-1] == "" else words
    ids = vocabulary.tokenizer.get_vocab(with_added_tokens=True)
    for number, word in enumerate(words):
        if ids.get(word.rstrip("\r")) != number:
            raise UserError(
                f"dataset.tokenizer: {file} is not the vocabulary of {NAME} beside it: line {number + 1}, "
                f"'{one_line(word)}', is id {ids.get(word, 'none')} there. Take both from one model."
            )


def _check_model(file: Path, vocabulary: Vocabulary) -> None:
    if not file.is_file():
        return
    try:
        size = json.loads(read_regular(file)).get("vocab_size")
    except (ValueError, AttributeError):
        raise UserError(f"dataset.tokenizer: {file} is no JSON object. Fetch it again.") from None
    if isinstance(size, int) and size < vocabulary.size:
        raise UserError(
            f"dataset.tokenizer: {NAME} has {vocabulary.size:,} ids, and the model beside it {size:,} ({file}). Take "
            "both from one model."
        )
