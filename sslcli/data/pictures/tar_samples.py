"""Which of a tar's members are samples: one picture of each key, and all of them where names have dots.

WebDataset calls a member's name up to its first dot the key, and members of one key a sample: ``7.jpg``, ``7.mask.png``
and ``7.cls``. But ``IMG_2020.01.07.png`` and ``IMG_2020.01.08.png`` have one key, too, and are two pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sslcli.data.pictures.byte_ranges import CUT

_SEVERAL = 2  # words a sample: where more of them stand between the key and the extension, they are no parts


@dataclass
class Picture:
    """A picture of a tar."""

    part: str  # what stands between the key and the last extension: mask in 7.mask.png
    start: int
    size: int
    label: bytes = b""


@dataclass
class Sample:
    """Consecutive members with the same key."""

    key: str
    pictures: list[Picture] = field(default_factory=list)
    labels: dict[str, bytes] = field(default_factory=dict)  # by what stands before .cls
    members: int = 0
    links: int = 0  # members that are other names of files

    def cut(self) -> None:
        """Let the last picture be damaged, because the file ends before the sample does."""
        self.pictures = self.pictures or [Picture("", 0, 0)]
        self.pictures[-1].size = CUT


Counts = tuple[int, int, int]  # members, pictures that are left out as further ones of their sample, and links


def chosen(samples: Sequence[Sample]) -> tuple[list[Picture], Counts]:
    """Return the pictures that are read, with their labels, in the order of the members; and counts.

    A word such as ``mask`` names a part of a sample: the picture without such a word is read, or the first one. Where a
    word begins with a digit, or almost every picture has another word, these are parts of names, and all are read.
    """
    several = [sample for sample in samples if len(sample.pictures) > 1]
    words = {picture.part for sample in several for picture in sample.pictures if picture.part}
    are_parts = len({word for word in words if not word[0].isdigit()}) <= _SEVERAL * len(several)
    found: list[Picture] = []
    further = 0
    for sample in samples:
        parts = [picture for picture in sample.pictures if are_parts and not picture.part[:1].isdigit()]
        main = next((picture for picture in parts if not picture.part), parts[0] if parts else None)
        for picture in sample.pictures:
            if picture is main or picture.part[:1].isdigit() or not are_parts:
                picture.label = sample.labels.get(picture.part, sample.labels.get("", b""))
                found.append(picture)
            else:
                further += 1
    return found, (sum(sample.members for sample in samples), further, sum(sample.links for sample in samples))
