"""`python -m envelock`: the `envelock` command."""

import sys

from envelock.cli import main

if __name__ == "__main__":
    sys.exit(main())
