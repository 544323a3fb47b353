"""Beat annotations → the five classes of ANSI/AAMI EC57.

N: normal, bundle branch block, and atrial or nodal *escape* beats; S: supraventricular ectopic;
V: ventricular ectopic; F: fusion of ventricular and normal; Q: paced, fusion with paced,
unclassifiable. Some public code puts the escape beats e and j under S; EC57 (and de Chazal 2004,
doi 10.1109/TBME.2004.827359) have them under N. Flutter waves (!) are not beats.
"""

from __future__ import annotations

CLASSES = ("N", "S", "V", "F", "Q")
_SYMBOLS = {"N": "NLRBej", "S": "AaJSn", "V": "VEr", "F": "F", "Q": "/fQ?"}
CLASS_OF = {symbol: CLASSES.index(c) for c, symbols in _SYMBOLS.items() for symbol in symbols}
PACED = "/f"
