"""What the documentation tells users to write."""

import re

from support import ROOT


def recipe(page: str, words: str) -> str:
    """The Python block of a page that has these words in it.

    Raises:
        ValueError: none has, or several have.
    """
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)
    (found,) = (block for block in blocks if words in block)
    return found
