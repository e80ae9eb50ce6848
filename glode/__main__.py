"""python -m glode"""

import sys

from glode.command import main

sys.exit(main())
