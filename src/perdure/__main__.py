"""``python -m perdure`` is the ``perdure`` command, as ``torchrun -m perdure`` starts it."""

import sys

from perdure.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
