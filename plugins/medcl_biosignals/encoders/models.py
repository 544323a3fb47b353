"""Released encoders of signals, as data: where each is, under what licence, and how it is fed.

What each is fed is read in its authors' code, or where that could not be had in code that loads
their weights; ``read`` says which. None of the weights is here: each network is tested on random
weights under the names and of the layout of the released ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from medcl_biosignals.encoders import hong, s4, wav2vec

Scale = Literal["lead", "all", "range", "none"]
TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def _as_they_are(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(tensors)


@dataclass(frozen=True)
class Released:
    """A model that somebody published.

    Attributes:
        where: to get it.
        paper: where it is described.
        licence: of the weights.
        files: that hold the weights, the preferred first; the first is what a conversion writes.
        convert: whether the released file holds more than tensors, so that it must be converted.
        build: (tensors by name, config.json) → the network, in their sizes.
        names: the released names as those of the network.
        prefix: of the released names.
        heads: a pattern of names of what only pretraining uses, and of what its code never calls.
        config: whether config.json is read.
        leads: that it takes, in its order: for ``prepare.leads``.
        fs: sampling rate in Hz.
        seconds: of its windows; ``fixed`` if no other length is taken.
        band: of its authors' filter in Hz, for ``prepare.band``; null: none.
        unit: of the signal, before ``scale``.
        scale: what is made of a window then: "lead": each lead less its mean, by its standard
            deviation; "all": the same for all leads together; "range": each lead to −1 … 1;
            "none": nothing.
        read: whose code this was read in.
    """

    where: str
    paper: str
    licence: str
    files: tuple[str, ...]
    build: Callable[[Mapping[str, Tensor], Mapping[str, Any]], nn.Module]
    leads: tuple[str, ...]
    fs: float
    seconds: float
    scale: Scale
    read: str
    unit: str = "mV"
    band: tuple[float, float] | None = None
    fixed: bool = False
    convert: bool = False
    names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _as_they_are
    prefix: str = ""
    heads: str = r"^$"
    config: bool = False


RELEASED: dict[str, Released] = {
    "papagei-s": Released(
        "https://zenodo.org/records/13983110",
        "Pillai 2025 (ICLR), arXiv 2410.20542",
        "as its Zenodo record says",
        ("model.safetensors", "papagei_s.pt"),
        hong.papagei,
        leads=("PPG:*",),
        fs=125.0,
        seconds=10.0,
        band=(0.5, 12.0),
        unit="any",
        scale="lead",
        prefix="module.",
        heads=r"^(expert_layers|gating_network)_\d\.|^projector\.|^basicblock_list\.0\.bn1\.",
        read="the authors' README, and their network in projects that load its weights",
    ),
    "ecg-fm": Released(
        "https://huggingface.co/wanglab/ecg-fm",
        "McKeen 2024, arXiv 2408.05178",
        "MIT",
        ("model.safetensors",),
        wav2vec.ecg_fm,
        leads=TWELVE,
        fs=500.0,
        seconds=5.0,
        scale="lead",
        convert=True,
        names=wav2vec.of_fairseq,
        heads=r"^mask_emb$|^(quantizer|project_q|final_proj)\.",
        read="fairseq-signals (ECGTransformerModel) and ECG-FM's infer_quickstart notebook",
    ),
    "hubert-ecg": Released(
        "https://huggingface.co/Edoardo-BS",
        "Coppola 2024, medRxiv 2024.11.14.24317328",
        "CC-BY-NC-4.0",
        ("model.safetensors", "pytorch_model.bin"),
        wav2vec.hubert_ecg,
        leads=TWELVE,
        fs=100.0,
        seconds=5.0,
        fixed=True,
        band=(0.05, 47.0),
        scale="range",
        names=wav2vec.of_transformers,
        heads=r"^masked_spec_embed$|^(final_proj|label_embedding)\.",
        config=True,
        read="HuBERT-ECG (dataset.py, utils.py) and transformers' HubertModel",
    ),
    "ecgfounder": Released(
        "https://huggingface.co/PKUDigitalHealth/ECGFounder",
        "Li 2024, arXiv 2410.04133",
        "as its model card says",
        ("model.safetensors", "12_lead_ECGFounder.pth"),
        hong.founder,
        leads=TWELVE,
        fs=500.0,
        seconds=10.0,
        band=(0.67, 40.0),
        scale="all",
        heads=r"(^|\.)(first_bn|bn[123])\.|^dense\.",
        read="ECGFounder (finetune_model.py, dataset.py), and its network in projects that use it",
    ),
    "ecgfounder-1lead": Released(
        "https://huggingface.co/PKUDigitalHealth/ECGFounder",
        "Li 2024, arXiv 2410.04133",
        "as its model card says",
        ("model.safetensors", "1_lead_ECGFounder.pth"),
        hong.founder,
        leads=("I",),
        fs=500.0,
        seconds=10.0,
        band=(0.67, 40.0),
        scale="all",
        heads=r"(^|\.)(first_bn|bn[123])\.|^dense\.",
        read="as ecgfounder",
    ),
    "ecg-cpc": Released(
        "https://figshare.com/articles/dataset/ECG-CPC_Checkpoint/30192604",
        "Al-Masud 2025, arXiv 2509.25095",
        "CC-BY-4.0",
        ("model.safetensors",),
        s4.cpc,
        leads=TWELVE,
        fs=240.0,
        seconds=2.5,
        scale="none",
        convert=True,
        names=s4.of_clinical_ts,
        prefix="ts_encoder.",
        heads=r"^head_ssl\.",
        read="ecg-fm-benchmarking (s42.py, encoder.py), and a project that loads all its tensors",
    ),
}
