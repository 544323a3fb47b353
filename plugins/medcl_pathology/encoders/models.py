"""Released encoders of histology, as data: where each is, under what licence, and how it is fed.

Hub names, licences, gates and preprocessing are those of the authors' model cards. None of the
weights is here, and most are gated: each is tested on a small network of its architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from medcl_pathology.encoders.parts import HALF, IMAGENET

Family = Literal["timm", "transformers", "conch", "code"]
Pool = Literal["cls", "cls+mean", "mean"]
Colour = tuple[tuple[float, ...], tuple[float, ...]]

CLIP: Colour = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_OPTIMUS: Colour = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_HIBOU: Colour = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_LUNIT: Colour = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))


@dataclass(frozen=True)
class Released:
    """A model that somebody published.

    Attributes:
        repository: on huggingface.co, or where else it is.
        paper: where it is described.
        licence: of the weights.
        gated: whether access is asked for.
        family: what opens it: "timm", "transformers", its authors' package ("conch"), or only
            "code" of its own folder, which never runs unless it is asked for.
        level: of what it makes a vector: a "tile", or a "slide" of its tiles.
        build: timm's name of the architecture.
        options: what timm builds it with; ``swiglu`` stands for its packed layers.
        pool: what is the embedding: the class token, that and the mean of the patches, or the mean.
        prefix: tokens that are no patch.
        colours: mean and deviation of its input.
        size, mpp: the tile that it was made for, in pixels and µm.
        resize, crop: the shorter side is brought to the one, and the middle taken of the other.
    """

    repository: str
    paper: str
    licence: str
    gated: bool = True
    family: Family = "timm"
    level: Literal["tile", "slide"] = "tile"
    build: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pool: Pool = "cls"
    prefix: int = 1
    colours: Colour = IMAGENET
    size: int = 224
    mpp: float = 0.5
    resize: int = 224
    crop: int = 224


_VIRCHOW = {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "swiglu": True}

RELEASED: dict[str, Released] = {
    "uni": Released(
        "MahmoodLab/UNI",
        "Chen 2024, doi 10.1038/s41591-024-02857-3",
        "CC-BY-NC-ND-4.0",
        build="vit_large_patch16_224",
        options={"init_values": 1e-5, "dynamic_img_size": True},
        size=256,
    ),
    "uni2-h": Released(
        "MahmoodLab/UNI2-h",
        "Chen 2024, doi 10.1038/s41591-024-02857-3 (second model)",
        "CC-BY-NC-ND-4.0",
        build="vit_giant_patch14_224",
        options={"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24,
                 "init_values": 1e-5, "embed_dim": 1536, "mlp_ratio": 2.66667 * 2,
                 "no_embed_class": True, "swiglu": True, "reg_tokens": 8,
                 "dynamic_img_size": True},
        prefix=9,
        size=256,
    ),
    "conch": Released(
        "MahmoodLab/CONCH",
        "Lu 2024, doi 10.1038/s41591-024-02856-4",
        "CC-BY-NC-ND-4.0",
        family="conch",
        colours=CLIP,
        size=512,
        resize=448,
        crop=448,
    ),
    "conch-v1.5": Released(
        "MahmoodLab/conchv1_5",
        "Ding 2024, arXiv 2411.19666",
        "CC-BY-NC-ND-4.0",
        family="code",
        size=512,
        resize=448,
        crop=448,
    ),
    "virchow": Released(
        "paige-ai/Virchow",
        "Vorontsov 2024, doi 10.1038/s41591-024-03141-0",
        "Apache-2.0",
        build="vit_huge_patch14_224",
        options=_VIRCHOW,
        pool="cls+mean",
    ),
    "virchow2": Released(
        "paige-ai/Virchow2",
        "Zimmermann 2024, arXiv 2408.00738",
        "CC-BY-NC-ND-4.0",
        build="vit_huge_patch14_224",
        options={**_VIRCHOW, "reg_tokens": 4, "dynamic_img_size": True},
        pool="cls+mean",
        prefix=5,
    ),
    "h-optimus-0": Released(
        "bioptimus/H-optimus-0",
        "Saillard 2024, github.com/bioptimus/releases",
        "Apache-2.0",
        build="vit_giant_patch14_reg4_dinov2",
        options={"img_size": 224, "init_values": 1e-5},
        prefix=5,
        colours=_OPTIMUS,
    ),
    "h-optimus-1": Released(
        "bioptimus/H-optimus-1",
        "Bioptimus 2025, huggingface.co/bioptimus/H-optimus-1",
        "CC-BY-NC-ND-4.0",
        build="vit_giant_patch14_reg4_dinov2",
        options={"img_size": 224, "init_values": 1e-5},
        prefix=5,
        colours=_OPTIMUS,
    ),
    "gigapath": Released(
        "prov-gigapath/prov-gigapath",
        "Xu 2024, doi 10.1038/s41586-024-07441-w",
        "Prov-GigaPath (research)",
        build="vit_giant_patch14_dinov2",
        options={"img_size": 224, "patch_size": 16, "init_values": 1e-5, "depth": 40,
                 "embed_dim": 1536, "num_heads": 24, "mlp_ratio": 5.33334},
        size=256,
        resize=256,
    ),
    "phikon": Released(
        "owkin/phikon",
        "Filiot 2023, doi 10.1101/2023.07.21.23292757",
        "Owkin non-commercial",
        gated=False,
        family="transformers",
    ),
    "phikon-v2": Released(
        "owkin/phikon-v2",
        "Filiot 2024, arXiv 2409.09173",
        "Owkin non-commercial",
        gated=False,
        family="transformers",
    ),
    "hibou-b": Released(
        "histai/hibou-b",
        "Nechaev 2024, arXiv 2406.05074",
        "Apache-2.0",
        family="code",
        prefix=5,
        colours=_HIBOU,
    ),
    "hibou-l": Released(
        "histai/hibou-L",
        "Nechaev 2024, arXiv 2406.05074",
        "Apache-2.0",
        family="code",
        prefix=5,
        colours=_HIBOU,
    ),
    "midnight": Released(
        "kaiko-ai/midnight",
        "Karasikov 2025, arXiv 2504.05186",
        "MIT",
        gated=False,
        family="transformers",
        pool="cls+mean",
        colours=HALF,
    ),
    "ctranspath": Released(
        "github.com/Xiyue-Wang/TransPath",
        "Wang 2022, doi 10.1016/j.media.2022.102559",
        "GPL-3.0",
        gated=False,
        family="code",
        size=256,
        mpp=1.0,
    ),
    "kaiko-vits16": Released(
        "1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
        "Aben 2024, arXiv 2404.15217",
        "as its model card says",
        gated=False,
        build="vit_small_patch16_224",
        options={"dynamic_img_size": True},
        colours=HALF,
        size=256,
    ),
    "kaiko-vitb16": Released(
        "1aurent/vit_base_patch16_224.kaiko_ai_towards_large_pathology_fms",
        "Aben 2024, arXiv 2404.15217",
        "as its model card says",
        gated=False,
        build="vit_base_patch16_224",
        options={"dynamic_img_size": True},
        colours=HALF,
        size=256,
    ),
    "kaiko-vitl14": Released(
        "1aurent/vit_large_patch14_reg4_224.kaiko_ai_towards_large_pathology_fms",
        "Aben 2024, arXiv 2404.15217",
        "as its model card says",
        gated=False,
        build="vit_large_patch14_reg4_dinov2",
        options={"img_size": 224, "dynamic_img_size": True},
        prefix=5,
        colours=HALF,
        size=256,
    ),
    "lunit-vits16": Released(
        "1aurent/vit_small_patch16_224.lunit_dino",
        "Kang 2023, arXiv 2212.04690",
        "Lunit non-commercial",
        gated=False,
        build="vit_small_patch16_224",
        options={"dynamic_img_size": True},
        colours=_LUNIT,
    ),
    "titan": Released(
        "MahmoodLab/TITAN", "Ding 2024, arXiv 2411.19666", "CC-BY-NC-ND-4.0",
        family="code", level="slide", size=512,
    ),
    "prism": Released(
        "paige-ai/Prism", "Shaikovski 2024, arXiv 2405.10254", "CC-BY-NC-ND-4.0",
        family="code", level="slide",
    ),
    "chief": Released(
        "github.com/hms-dbmi/CHIEF", "Wang 2024, doi 10.1038/s41586-024-07894-z", "AGPL-3.0",
        family="code", level="slide", mpp=1.0,
    ),
    "gigapath-slide": Released(
        "prov-gigapath/prov-gigapath",
        "Xu 2024, doi 10.1038/s41586-024-07441-w",
        "Prov-GigaPath (research)",
        family="code", level="slide", size=256,
    ),
}  # fmt: skip
