"""Beat annotations → the five classes of ANSI/AAMI EC57.

N: normal, bundle branch block, and atrial or nodal *escape* beats; S: supraventricular ectopic;
V: ventricular ectopic; F: fusion of ventricular and normal; Q: paced, fusion with paced,
unclassifiable. Some public code puts the escape beats e and j under S; EC57 (and de Chazal 2004,
doi 10.1109/TBME.2004.827359) have them under N. Flutter waves (!) are not beats.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CLASSES = ("N", "S", "V", "F", "Q")
_SYMBOLS = {"N": "NLRBej", "S": "AaJSn", "V": "VEr", "F": "F", "Q": "/fQ?"}
CLASS_OF = {symbol: CLASSES.index(c) for c, symbols in _SYMBOLS.items() for symbol in symbols}
PACED = "/f"


def beats(annotation: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read the beats of a WFDB annotation file such as ``100.atr``.

    Returns:
        sample positions (K,) int64, classes (K,) int8 as indices into `CLASSES`, and whether any
        beat is paced. Marks that are not beats (rhythm, noise, flutter waves) are left out.
    """
    import numpy as np
    from wfdb import rdann

    marks = rdann(str(annotation.with_suffix("")), annotation.suffix[1:])
    classes = np.array([CLASS_OF.get(symbol, -1) for symbol in marks.symbol], dtype=np.int8)
    known = classes >= 0
    paced = any(symbol in PACED for symbol in set(marks.symbol))
    return np.asarray(marks.sample, dtype=np.int64)[known], classes[known], paced
