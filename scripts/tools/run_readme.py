"""Run every command in a document's bash blocks in one folder, except pip install, and stop at the first failure.

python scripts/tools/run_readme.py FOLDER [README.md]
"""

import argparse
import re
import subprocess
import time
from pathlib import Path


def commands(document: str) -> list[str]:
    text = (Path(__file__).parents[2] / document).read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith(("#", "pip install"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet; the commands run in it")
    parser.add_argument("document", nargs="?", default="README.md", help="its path from the repository root")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    for command in commands(args.document):
        print(f"$ {command}", flush=True)
        start = time.perf_counter()
        subprocess.run(["bash", "-c", command], cwd=args.folder, check=True)
        print(f"({time.perf_counter() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
