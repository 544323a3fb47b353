"""Published objectives by name: pure functions of tensors, one file each, one line here.

Every objective is ``f(tensors..., *, settings..., ranks=ALONE) -> scalar``. Each rank passes its
own part of the batch; the mean over ranks of what is returned is the loss of one process holding
the whole batch, and so are the gradients. ``needs`` says what crosses ranks to make that so.

``from medcl.objectives import nt_xent`` is the function in every import order: a module is bound
to its package only when it is first imported, and that happens here, before the functions
take their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medcl.objectives.barlow_twins import barlow_twins
from medcl.objectives.class_balanced import class_balanced
from medcl.objectives.clip import clip
from medcl.objectives.deepcluster import deepcluster
from medcl.objectives.dino import dino
from medcl.objectives.domain_contrast import domain_contrast
from medcl.objectives.focal_contrast import focal_contrast
from medcl.objectives.future_contrast import future_contrast
from medcl.objectives.generalised_cross_entropy import generalised_cross_entropy
from medcl.objectives.graph_contrast import graph_contrast
from medcl.objectives.info_nce import info_nce
from medcl.objectives.koleo import koleo
from medcl.objectives.ldam import ldam
from medcl.objectives.listwise_wasserstein import listwise_wasserstein
from medcl.objectives.logit_adjusted import logit_adjusted
from medcl.objectives.masked_codes import masked_codes
from medcl.objectives.masked_columns import masked_columns
from medcl.objectives.masked_embedding import masked_embedding
from medcl.objectives.masked_reconstruction import masked_reconstruction
from medcl.objectives.matching import matching
from medcl.objectives.me_max import me_max
from medcl.objectives.mmd import mmd
from medcl.objectives.nearest_prototype import nearest_prototype
from medcl.objectives.negative_cosine import negative_cosine
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.ot_contrast import ot_contrast
from medcl.objectives.quantised_contrast import codebook_diversity, quantised_contrast
from medcl.objectives.rank_n_contrast import rank_n_contrast
from medcl.objectives.sigreg import sigreg
from medcl.objectives.similarity_reconstruction import similarity_reconstruction
from medcl.objectives.soft_contrast import soft_contrast
from medcl.objectives.supcon import supcon
from medcl.objectives.swav import swav
from medcl.objectives.token_relation import token_relation
from medcl.objectives.tree_contrast import tree_contrast
from medcl.objectives.unilateral_contrast import unilateral_contrast
from medcl.objectives.vicreg import vicreg
from medcl.objectives.virtual_adversarial import virtual_adversarial
from medcl.objectives.visreg import visreg
from medcl.registry import Lazy

__all__ = [
    "OBJECTIVES",
    "Objective",
    "barlow_twins",
    "class_balanced",
    "clip",
    "codebook_diversity",
    "deepcluster",
    "dino",
    "domain_contrast",
    "focal_contrast",
    "future_contrast",
    "generalised_cross_entropy",
    "graph_contrast",
    "info_nce",
    "koleo",
    "ldam",
    "listwise_wasserstein",
    "logit_adjusted",
    "masked_codes",
    "masked_columns",
    "masked_embedding",
    "masked_reconstruction",
    "matching",
    "me_max",
    "mmd",
    "nearest_prototype",
    "negative_cosine",
    "nt_xent",
    "ot_contrast",
    "quantised_contrast",
    "rank_n_contrast",
    "sigreg",
    "similarity_reconstruction",
    "soft_contrast",
    "supcon",
    "swav",
    "token_relation",
    "tree_contrast",
    "unilateral_contrast",
    "vicreg",
    "virtual_adversarial",
    "visreg",
]


@dataclass(frozen=True)
class Objective:
    """A registered objective.

    Attributes:
        target: where the function is.
        needs: what it asks of the other ranks: "nothing", their "negatives" (embeddings or scores
            are gathered), or their "statistics" (batch moments, or how many samples count).
        paper: citation.
    """

    target: Lazy
    needs: Literal["nothing", "negatives", "statistics"]
    paper: str


OBJECTIVES: dict[str, Objective] = {
    "info_nce": Objective(
        "medcl.objectives.info_nce:info_nce", "negatives", "Oord 2018, arXiv 1807.03748"
    ),
    "nt_xent": Objective(
        "medcl.objectives.nt_xent:nt_xent", "negatives", "Chen 2020, arXiv 2002.05709"
    ),
    "clip": Objective("medcl.objectives.clip:clip", "negatives", "Radford 2021, arXiv 2103.00020"),
    "supcon": Objective(
        "medcl.objectives.supcon:supcon", "negatives", "Khosla 2020, arXiv 2004.11362"
    ),
    "graph_contrast": Objective(
        "medcl.objectives.graph_contrast:graph_contrast",
        "negatives",
        "Khosla 2020, arXiv 2004.11362; Sobal 2024, arXiv 2407.18134",
    ),
    "soft_contrast": Objective(
        "medcl.objectives.soft_contrast:soft_contrast",
        "negatives",
        "Burdisso 2024, arXiv 2410.18481",
    ),
    "tree_contrast": Objective(
        "medcl.objectives.tree_contrast:tree_contrast", "negatives", "He 2022, arXiv 2209.06638"
    ),
    "ot_contrast": Objective(
        "medcl.objectives.ot_contrast:ot_contrast", "negatives", "Zhou 2024, arXiv 2409.07462"
    ),
    "rank_n_contrast": Objective(
        "medcl.objectives.rank_n_contrast:rank_n_contrast",
        "negatives",
        "Zha 2023, arXiv 2210.01189",
    ),
    "listwise_wasserstein": Objective(
        "medcl.objectives.listwise_wasserstein:listwise_wasserstein",
        "negatives",
        "Esfandiarpoor 2025, arXiv 2503.23239",
    ),
    "focal_contrast": Objective(
        "medcl.objectives.focal_contrast:focal_contrast",
        "negatives",
        "Zhang 2021, arXiv 2102.06605",
    ),
    "unilateral_contrast": Objective(
        "medcl.objectives.unilateral_contrast:unilateral_contrast",
        "negatives",
        "Wang 2023, arXiv 2308.10155",
    ),
    "domain_contrast": Objective(
        "medcl.objectives.domain_contrast:domain_contrast",
        "negatives",
        "Bhattacharjee 2023, arXiv 2309.03992",
    ),
    "mmd": Objective("medcl.objectives.mmd:mmd", "negatives", "Gretton 2012, JMLR 13"),
    "koleo": Objective(
        "medcl.objectives.koleo:koleo", "negatives", "Sablayrolles 2019, arXiv 1806.03198"
    ),
    "swav": Objective("medcl.objectives.swav:swav", "statistics", "Caron 2020, arXiv 2006.09882"),
    "deepcluster": Objective(
        "medcl.objectives.deepcluster:deepcluster", "statistics", "Caron 2018, arXiv 1807.05520"
    ),
    "me_max": Objective(
        "medcl.objectives.me_max:me_max", "statistics", "Assran 2022, arXiv 2204.07141"
    ),
    "nearest_prototype": Objective(
        "medcl.objectives.nearest_prototype:nearest_prototype",
        "nothing",
        "Shen 2024, arXiv 2407.14904",
    ),
    "negative_cosine": Objective(
        "medcl.objectives.negative_cosine:negative_cosine",
        "nothing",
        "Grill 2020, arXiv 2006.07733; Chen 2021, arXiv 2011.10566",
    ),
    "vicreg": Objective(
        "medcl.objectives.vicreg:vicreg", "statistics", "Bardes 2022, arXiv 2105.04906"
    ),
    "barlow_twins": Objective(
        "medcl.objectives.barlow_twins:barlow_twins", "statistics", "Zbontar 2021, arXiv 2103.03230"
    ),
    "sigreg": Objective(
        "medcl.objectives.sigreg:sigreg", "statistics", "Balestriero 2025, arXiv 2511.08544"
    ),
    "visreg": Objective("medcl.objectives.visreg:visreg", "negatives", "Wu 2026, arXiv 2606.02572"),
    "dino": Objective("medcl.objectives.dino:dino", "nothing", "Caron 2021, arXiv 2104.14294"),
    "masked_reconstruction": Objective(
        "medcl.objectives.masked_reconstruction:masked_reconstruction",
        "statistics",
        "He 2022, arXiv 2111.06377; Tian 2023, arXiv 2301.03580",
    ),
    "masked_codes": Objective(
        "medcl.objectives.masked_codes:masked_codes",
        "nothing",
        "Zhou 2022, arXiv 2111.07832; Oquab 2023, arXiv 2304.07193",
    ),
    "masked_columns": Objective(
        "medcl.objectives.masked_columns:masked_columns",
        "statistics",
        "Du 2024, arXiv 2407.07582",
    ),
    "masked_embedding": Objective(
        "medcl.objectives.masked_embedding:masked_embedding",
        "statistics",
        "Nguyen 2023, arXiv 2212.01893; Assran 2023, arXiv 2301.08243",
    ),
    "similarity_reconstruction": Objective(
        "medcl.objectives.similarity_reconstruction:similarity_reconstruction",
        "negatives",
        "Dong 2023, arXiv 2302.00861; Arunan 2025, arXiv 2510.05172",
    ),
    "future_contrast": Objective(
        "medcl.objectives.future_contrast:future_contrast",
        "nothing",
        "Oord 2018, arXiv 1807.03748; Mehari 2022, arXiv 2103.12676",
    ),
    "quantised_contrast": Objective(
        "medcl.objectives.quantised_contrast:quantised_contrast",
        "statistics",
        "Baevski 2020, arXiv 2006.11477; Chung 2021, arXiv 2108.06209",
    ),
    "codebook_diversity": Objective(
        "medcl.objectives.quantised_contrast:codebook_diversity",
        "statistics",
        "Baevski 2020, arXiv 2006.11477",
    ),
    "token_relation": Objective(
        "medcl.objectives.token_relation:token_relation",
        "nothing",
        "Wang 2020, arXiv 2002.10957; Shi 2024, arXiv 2306.15876",
    ),
    "generalised_cross_entropy": Objective(
        "medcl.objectives.generalised_cross_entropy:generalised_cross_entropy",
        "statistics",
        "Zhang & Sabuncu 2018, arXiv 1805.07836",
    ),
    "matching": Objective(
        "medcl.objectives.matching:matching", "nothing", "Du 2024, arXiv 2407.07582"
    ),
    "virtual_adversarial": Objective(
        "medcl.objectives.virtual_adversarial:virtual_adversarial",
        "nothing",
        "Miyato 2018, arXiv 1704.03976; Li 2024, arXiv 2402.11495",
    ),
    "class_balanced": Objective(
        "medcl.objectives.class_balanced:class_balanced",
        "statistics",
        "Cui 2019, arXiv 1901.05555",
    ),
    "ldam": Objective("medcl.objectives.ldam:ldam", "statistics", "Cao 2019, arXiv 1906.07413"),
    "logit_adjusted": Objective(
        "medcl.objectives.logit_adjusted:logit_adjusted",
        "statistics",
        "Menon 2021, arXiv 2007.07314",
    ),
}
