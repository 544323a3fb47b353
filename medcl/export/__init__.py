"""Export of what was trained: an encoder, a study's classifier, a probe's head on its encoder."""

from __future__ import annotations

from medcl.export.classifier import Classified as Classified
from medcl.export.classifier import export_classifier as export_classifier
from medcl.export.classifier import load_classifier as load_classifier
from medcl.export.encoder import FACTS as FACTS
from medcl.export.encoder import Exported as Exported
from medcl.export.encoder import encoder_of as encoder_of
from medcl.export.encoder import export as export
from medcl.export.encoder import load_encoder as load_encoder
from medcl.export.graphs import TOLERANCE as TOLERANCE
from medcl.export.graphs import Format as Format
from medcl.export.hub import pull as pull
from medcl.export.hub import push as push
from medcl.export.release import release as release
