"""Names of aggregators and of classifiers of bags. Light to import."""

from __future__ import annotations

from collections.abc import Mapping

from medcl.registry import Lazy

_HERE = "medcl_pathology.mil"

AGGREGATORS: Mapping[str, Lazy] = {
    "mean": f"{_HERE}.aggregators.mean:Mean",
    "max": f"{_HERE}.aggregators.maximum:Maximum",
    "abmil": f"{_HERE}.aggregators.abmil:ABMIL",
    "gated-abmil": f"{_HERE}.aggregators.abmil:GatedABMIL",
    "clam-sb": f"{_HERE}.aggregators.clam:ClamSB",
    "clam-mb": f"{_HERE}.aggregators.clam:ClamMB",
    "dsmil": f"{_HERE}.aggregators.dsmil:DSMIL",
    "transmil": f"{_HERE}.aggregators.transmil:TransMIL",
    "acmil": f"{_HERE}.aggregators.acmil:ACMIL",
    "dtfd": f"{_HERE}.aggregators.dtfd:DTFD",
    "dgr-mil": f"{_HERE}.aggregators.dgr_mil:DGRMIL",
    "sm-abmil": f"{_HERE}.aggregators.sm_abmil:SmABMIL",
    "camil": f"{_HERE}.aggregators.camil:CAMIL",
    "patch-gcn": f"{_HERE}.aggregators.patch_gcn:PatchGCN",
    "graph": f"{_HERE}.aggregators.graph:Graph",
}

CLASSIFIERS: Mapping[str, Lazy] = {
    "mil": f"{_HERE}.classifier:Mil",
    "sc-mil": f"{_HERE}.sc_mil:ScMil",
    "ins": f"{_HERE}.ins:Ins",
    "songci-text": f"{_HERE}.songci_text:SongCiText",
}
