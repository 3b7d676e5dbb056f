"""Tokenizers: those that are trained here, and those of the user."""

import json
import random

import pytest
import tokenizers
import torch

from sslcli.data.text.files import text
from sslcli.data.text.texts import CONTINUES
from sslcli.data.text.train_tokenizer import trained
from sslcli.data.text.vocabulary import Vocabulary
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

TEXTS = [f"The {a} of the {b}, unbelievably {a}er." for a in ("red", "low", "slow", "tall") for b in ("sea", "day")] * 3


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_order_of_the_texts_makes_no_other_tokenizer(kind):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    assert trained(kind, iter(TEXTS), 340) == trained(kind, iter(shuffled), 340)


def test_wordpiece_is_what_the_librarys_own_trainer_makes_up_to_ties():
    """Read as BERT reads: lower case, punctuation apart, pieces that go on with ##, begin and end."""
    own = Vocabulary(trained("wordpiece", iter(TEXTS), 200))
    other = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    other.normalizer, other.pre_tokenizer = own.tokenizer.normalizer, own.tokenizer.pre_tokenizer
    other.train_from_iterator(TEXTS, tokenizers.trainers.WordPieceTrainer(vocab_size=200, show_progress=False))
    for line in ("the slow day", "red.", "unbelievably"):
        assert own.tokenizer.encode(line, add_special_tokens=False).tokens == other.encode(line).tokens
    tokens = own.tokenizer.encode("The Slowest\u00e9!").tokens
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and tokens[1] == "the" and tokens[-2] == "[UNK]"
    assert (own.pad, own.unknown, own.special, own.mask) == (0, 1, (2, 3), 4) and own.size <= 200


def test_bytes_have_no_unknown_and_spell_every_text():
    vocabulary = Vocabulary(trained("bpe", iter(TEXTS), 300))
    line = " Caf\u00e9 \u4e2d\u6587 \U0001f600"
    assert vocabulary.decode(vocabulary.padded([line], 64)) == [line]
    assert vocabulary.size == 300 and len(vocabulary.special) == 2


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_tokens_of_a_word_after_its_first_go_on_with_it(kind):
    """As the words say into which the tokenizer itself cuts the text; a blank and the word after it count as one."""
    vocabulary = Vocabulary(trained(kind, iter(TEXTS), 270 if kind == "bpe" else 60))
    goes_on, pieces = vocabulary.continues(), 0
    assert goes_on.shape == (vocabulary.size,) and goes_on.dtype == torch.bool
    found = vocabulary.tokenizer.encode("the unbelievably slower day", add_special_tokens=False)
    for k in range(1, len(found.ids)):
        assert bool(goes_on[found.ids[k]]) == (found.word_ids[k] == found.word_ids[k - 1])
        pieces += bool(goes_on[found.ids[k]])
    assert 4 < pieces < len(found.ids) - 3


def test_the_words_of_texts_are_facts_of_the_run(tmp_path):
    files = Fitted()
    train = text(path=_lines(tmp_path), tokenizer="wordpiece", holdout=0.0).fit(files)
    assert torch.equal(train.spec.facts[CONTINUES], train.vocabulary.continues())
    assert set(files.digests()) == {"tokenizer.json", "facts.safetensors"}


def _lines(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    return str(tmp_path / "a.txt")


def saved(path, names, model=None):
    tokenizer = tokenizers.Tokenizer(model or tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.add_special_tokens(names)
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))


def fit(tmp_path, tokenizer, **keys):
    (tmp_path / "a.txt").write_text("a b a\nb\n")
    return text(path=str(tmp_path / "a.txt"), tokenizer=str(tokenizer), holdout=0.0, **keys).fit(Fitted())


def test_a_tokenizer_of_the_user_keeps_its_ids(tmp_path):
    saved(tmp_path / "t.json", ["<|pad|>", "<mask>", "[X]"])
    train = fit(tmp_path, tmp_path / "t.json")
    field = train.spec["text"]
    assert (field.pad, field.mask, field.special, field.vocab) == (2, 3, (4,), 5)
    assert train.fetch(torch.arange(2))["text"].unique().tolist() == [0, 1, 2] and field.shape == (64,)


def test_without_a_mask_token_nothing_can_be_hidden_and_a_line_says_so(tmp_path):
    saved(tmp_path / "t.json", ["[PAD]"])
    train = fit(tmp_path, tmp_path / "t.json")
    assert train.spec["text"].mask is None and "no mask token" in dict(train.notes)["tokens"]


def test_what_is_wrong_with_a_tokenizer_is_a_line(tmp_path):
    saved(tmp_path / "t.json", ["[MASK]"])
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("t.json", r"t\.json has no token for padding, such as \[PAD\]. Its special tokens: \[MASK\]"),
        ("broken.json", r"broken\.json is no tokenizer\.json"),
        ("empty", r"empty has no tokenizer\.json. transformers writes one"),
        ("missing.json", r"there is no .*missing\.json"),
    ):
        with pytest.raises(UserError, match=said) as error:
            fit(tmp_path, tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="there is no wordpeice. Did you mean 'wordpiece'"):
        fit(tmp_path, "wordpeice")
    saved(tmp_path / "t.json", ["[PAD]"])
    with pytest.raises(UserError, match=r"dataset\.vocab_size is of a tokenizer that is trained"):
        fit(tmp_path, tmp_path / "t.json", vocab_size=100)


def test_a_folder_whose_vocabulary_is_another_than_the_tokenizers_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    saved(folder / "tokenizer.json", ["[PAD]"])
    (folder / "config.json").write_text(json.dumps({"vocab_size": 3}))
    (folder / "vocab.txt").write_text("a\nb\n[PAD]\n")
    assert fit(tmp_path, folder).spec["text"].vocab == 3
    (folder / "vocab.txt").write_text("b\na\n[PAD]\n")
    with pytest.raises(UserError, match=r"vocab\.txt is not the vocabulary of .*: line 1, 'b', is id 1 there"):
        fit(tmp_path, folder)
    (folder / "vocab.txt").unlink()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 2}))
    with pytest.raises(UserError, match=r"tokenizer\.json has 3 ids, and the model beside it 2"):
        fit(tmp_path, folder)


def test_a_length_without_room_for_a_word_is_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("a b a\nb\n")
    with pytest.raises(UserError, match=r"dataset\.length=2 is too short"):
        text(path=str(tmp_path / "a.txt"), length=2, holdout=0.0).fit(Fitted())


def test_without_the_library_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'sslcli\[text\]'"):
        fit(tmp_path, "wordpiece")
