"""Published methods by name: one file each, one line in `medcl.catalogue`.

``from medcl.methods import SimCLR`` imports the class and what it needs, and nothing of the others.
No class has the name of a module, so the import gives the class in every import order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medcl.catalogue import METHODS
from medcl.registry import resolve

if TYPE_CHECKING:
    from medcl.methods.byol import BYOL as BYOL
    from medcl.methods.byol import SimSiam as SimSiam
    from medcl.methods.can import CAN as CAN
    from medcl.methods.clip import TwoTower as TwoTower
    from medcl.methods.cpc import CPC as CPC
    from medcl.methods.ctvis import CTVIS as CTVIS
    from medcl.methods.data2vec import Data2Vec as Data2Vec
    from medcl.methods.debcse import DebCSE as DebCSE
    from medcl.methods.deepcluster import DeepClusterV2 as DeepClusterV2
    from medcl.methods.dino import DINO as DINO
    from medcl.methods.dinov2 import DINOv2 as DINOv2
    from medcl.methods.distil import Distil as Distil
    from medcl.methods.harmonised import Harmonised as Harmonised
    from medcl.methods.i_jepa import IJEPA as IJEPA
    from medcl.methods.lejepa import LeJEPA as LeJEPA
    from medcl.methods.lejepa import VISReg as VISReg
    from medcl.methods.mae import MAE as MAE
    from medcl.methods.mae_unet import UNetMAE as UNetMAE
    from medcl.methods.moco import MoCoV2 as MoCoV2
    from medcl.methods.moco import MoCoV3 as MoCoV3
    from medcl.methods.msn import MSN as MSN
    from medcl.methods.noisy_labels import NoisyLabels as NoisyLabels
    from medcl.methods.participant import Participant as Participant
    from medcl.methods.redundancy import BarlowTwins as BarlowTwins
    from medcl.methods.redundancy import VICReg as VICReg
    from medcl.methods.semi_supervised import SemiSupervised as SemiSupervised
    from medcl.methods.simclr import SimCLR as SimCLR
    from medcl.methods.site_adapt import SiteAdapt as SiteAdapt
    from medcl.methods.spark import SparK as SparK
    from medcl.methods.supcon import SupCon as SupCon
    from medcl.methods.swav import SwAV as SwAV
    from medcl.methods.tip import TIP as TIP
    from medcl.methods.unicon import UniCon as UniCon
    from medcl.methods.voco import VoCo as VoCo
    from medcl.methods.volume_fusion import VolumeFusion as VolumeFusion


def __getattr__(name: str) -> type:
    for target in METHODS.values():
        if target.endswith(f":{name}"):
            method: type = resolve(target)
            return method
    raise AttributeError(f"module 'medcl.methods' has no attribute '{name}'")
