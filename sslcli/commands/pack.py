"""Decode or collect a folder of pictures once, for many runs.

    ssl-pack SOURCE DEST --to array --size 64          # then dataset=packed dataset.path=DEST
    ssl-pack SOURCE DEST --to shards [--size 256]      # then dataset=shards dataset.path=DEST

SOURCE is the same as dataset.path for dataset=images: a folder of any layout, or a text file with one path per line.
Folders of a split, such as train and val, become one set: pack train alone to keep the others out of training.

array: the centred squares at --size pixels as one uint8 array, exactly the pixels of dataset=images dataset.size=SIZE.

shards: WebDataset's tar files, with pairs of files such as 000000012.jpg and 000000012.cls. The class is the number
that dataset=images gives it. Without --size the picture files are copied unchanged. With --size, a picture whose
shorter side is longer than SIZE is reduced to SIZE without cropping, so that crops can still be taken from all of it,
and encoded again: a JPEG as JPEG of quality 95 without chroma subsampling, any other format, which may be lossless, as
PNG. On two photographs at 256 px the mean error of that JPEG is 1.1 and 1.6 of 255 levels, at a third of the size of
PNG.

DEST is written as DEST.part and renamed when it is complete. It also contains sources.txt, the file of each sample;
pack.json, with the names of the classes; and bad_samples.txt, the files that could not be read and are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from sslcli.errors import UserError


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are messages like all others, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. The form is: {self.prog} SOURCE DEST --to shards|array [--size SIZE]")


def main(program: str) -> None:
    """Run ``ssl-pack`` with the arguments of the command line.

    Raises:
        UserError: SOURCE cannot be read, or DEST cannot be written.
    """
    parser = _Parser(prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="a folder of pictures, or a text file of their paths")
    parser.add_argument("dest", metavar="DEST", type=Path, help="the folder to write; it must not be there yet")
    parser.add_argument("--to", choices=["array", "shards"], required=True, help="what to write (no default)")
    parser.add_argument(
        "--size", type=int, help="pixels a side, or of the shorter side in shards (default: as they are)"
    )
    parser.add_argument("--workers", type=int, help="processes that decode (default: the CPUs)")
    parser.add_argument("--shard-size", type=float, default=500, help="megabytes (default 500)")
    args = parser.parse_args()
    from sslcli.data.pictures.pack import pack  # torch takes seconds to import, and --help should not

    try:
        pack(args.source, args.dest.expanduser(), args.to, args.size, args.workers, args.shard_size)
    except UserError as error:
        raise UserError(str(error).replace("dataset.path", "SOURCE")) from error
    except OSError as error:
        raise UserError(f"{args.dest} cannot be written: {error.strerror or error}.") from error
