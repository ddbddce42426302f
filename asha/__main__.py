"""``python3 -m asha`` is the command ``asha``, from a checkout."""

import sys

from asha.cli import main

sys.exit(main())
