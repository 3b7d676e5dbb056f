"""Run every command of a document's shell blocks in one folder, except the installs, and stop at the first failure.

python scripts/tools/run_readme.py FOLDER [README.md]
"""

import re
import subprocess
import sys
import time
from pathlib import Path


def commands(document: str) -> list[str]:
    text = (Path(__file__).parents[2] / document).read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith(("#", "pip install"))]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    for command in commands(sys.argv[2] if len(sys.argv) > 2 else "README.md"):
        print(f"$ {command}", flush=True)
        start = time.perf_counter()
        subprocess.run(["bash", "-c", command], cwd=folder, check=True)
        print(f"({time.perf_counter() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
